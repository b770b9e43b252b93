"""Tables of scikit-learn against scikit-learn's own scaler."""

import numpy as np
import pytest
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from trainloop import load

CLASSES = {"breast_cancer": 2, "wine": 3}
TARGETS = {"diabetes": 1, "linnerud": 3}


def rows_of(features):
    """Every row by its place in the original table: standardising keeps the order in each column."""
    return [tuple(row) for row in np.argsort(np.argsort(features, axis=0, kind="stable"), axis=0, kind="stable")]


@pytest.mark.parametrize("name", [*CLASSES, *TARGETS])
def test_parts_make_up_the_whole_table_in_units_of_the_training_part(name):
    features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    data = load(name)
    x_train, x_test = data.x_train.astype(float), data.x_test.astype(float)
    assert len(x_test) == -(-len(features) // 5)
    np.testing.assert_allclose(x_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x_train.std(axis=0), 1, rtol=1e-5)
    # Which original rows are in the training part follows from the mean of each column once its scale is undone.
    scale, places = features.std(axis=0), np.concatenate([x_train, x_test])
    undone = (places - places.mean(axis=0)) / places.std(axis=0)
    expected = (features - features.mean(axis=0)) / scale
    np.testing.assert_allclose(np.sort(undone, axis=0), np.sort(expected, axis=0), atol=1e-5)
    nearest = np.array([np.abs(expected - row).max(axis=1).argmin() for row in undone])
    chosen = nearest[: len(x_train)]
    assert sorted(set(nearest)) == sorted(nearest) or name == "linnerud"
    scaler = StandardScaler().fit(features[chosen])
    np.testing.assert_allclose(x_test, scaler.transform(features[nearest[len(x_train) :]]), atol=1e-4)
    check_targets(data, targets, nearest)


def check_targets(data, targets, nearest):
    count = len(data.x_train)
    if data.classes:
        np.testing.assert_array_equal(np.concatenate([data.y_train, data.y_test]), targets[nearest])
        return
    targets = targets.reshape(len(targets), -1)
    scaler = StandardScaler().fit(targets[nearest[:count]])
    for part, places in ((data.y_train, nearest[:count]), (data.y_test, nearest[count:])):
        np.testing.assert_allclose(part, scaler.transform(targets[places]), atol=1e-5)


@pytest.mark.parametrize(("name", "outputs"), [*CLASSES.items(), *TARGETS.items()])
def test_outputs(name, outputs):
    data = load(name)
    assert data.outputs == outputs
    assert data.classes == CLASSES.get(name)
    assert data.kind == "features"


@pytest.mark.parametrize("name", CLASSES)
def test_test_fifth_is_stratified(name):
    data = load(name)
    whole = np.bincount(np.concatenate([data.y_train, data.y_test]))
    assert np.abs(np.bincount(data.y_test) - whole / 5).max() < 1
