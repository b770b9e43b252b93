"""Rows, sequences and regression in the known form; images are in test_data."""

import numpy as np
import pytest

from trainloop import DataSplit

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)
TOKENS = np.arange(12, dtype=np.int32).reshape(6, 2) % 5


def split(x, y, classes, x_test=None, y_test=None):
    return DataSplit(x, y, x[:2] if x_test is None else x_test, y[:2] if y_test is None else y_test, classes)


@pytest.mark.parametrize(
    ("x", "y", "classes", "kind", "outputs"),
    [
        (ROWS, np.arange(6, dtype=np.int32) % 3, 3, "features", 3),
        (ROWS, ROWS[:, :1], None, "features", 1),
        (ROWS, np.ones((6, 4), np.float32), None, "features", 4),
        (ROWS.reshape(6, 1, 2, 1) / 12, ROWS, None, "images", 2),
        (TOKENS, TOKENS[::-1], np.int64(5), "tokens", 5),
    ],
)
def test_kinds(x, y, classes, kind, outputs):
    data = split(x, y, classes)
    assert (data.kind, data.input_shape, data.outputs) == (kind, x.shape[1:], outputs)
    assert data.x_train is x
    assert data.y_train is y


def test_targets_without_a_second_axis_get_one():
    data = split(ROWS, ROWS[:, 0], None)
    assert data.y_train.shape == (6, 1)
    assert data.y_test.shape == (2, 1)
    np.testing.assert_array_equal(data.y_train[:, 0], ROWS[:, 0])


NAN = np.full((6, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("x", "y", "classes", "words"),
    [
        (ROWS.astype(float), ROWS, None, r"x_train: expected .*float32 with shape \[N, d\].*float64"),
        (NAN, ROWS, None, "x_train: expected finite"),
        (ROWS, NAN, None, "y_train: expected finite"),
        (ROWS, ROWS.astype(int), None, r"y_train: expected .*float32 with shape \[N, k\].*int64"),
        (ROWS, ROWS[:5], None, "6 features and 5 targets"),
        (ROWS, ROWS[:, :0], None, "y_train: expected at least one target"),
        (ROWS[:, :0], ROWS, None, "x_train: expected at least one row of features"),
        (ROWS, ROWS, 3, r"y_train: expected .*int32 with shape \[N\]"),
        (TOKENS, TOKENS, None, "classes: expected .*received None.*vocabulary"),
        (TOKENS, TOKENS, 4, r"x_train: expected values in 0\.\.3, received 4"),
        (TOKENS, TOKENS + 1, 5, r"y_train: expected values in 0\.\.4, received 5"),
        (TOKENS, TOKENS[:, :1], 5, "expected a label for every position"),
        (TOKENS, TOKENS[:, 0], 5, r"y_train: expected .*\[N, T\]"),
        (TOKENS.astype(np.int64), TOKENS, 5, r"x_train: expected .*int32 with shape \[N, T\].*int64"),
    ],
)
def test_what_is_refused(x, y, classes, words):
    with pytest.raises(ValueError, match=words) as caught:
        split(x, y, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_test": ROWS[:2, :1]}, r"x_train, x_test: expected features of one shape, received \(2,\)"),
        ({"y_test": ROWS[:2, :1]}, "y_train, y_test: expected targets of one shape"),
        ({"x_test": ROWS[:2].reshape(2, 1, 2, 1) / 12}, "x_train, x_test"),
    ],
)
def test_both_parts_are_alike(changes, words):
    with pytest.raises(ValueError, match=words):
        split(ROWS, ROWS, None, **changes)
