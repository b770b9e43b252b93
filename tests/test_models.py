"""The networks that come along."""

import numpy as np
import pytest

from trainloop import MODELS, lenet5, mlp, softmax_regression


def test_lenet5_is_the_tutorials():
    model = lenet5()
    assert model.count_params() == 44_426
    sizes = [tuple(v.shape) for v in model.trainable_variables]
    kernels = [(5, 5, 1, 6), (5, 5, 6, 16), (256, 120), (120, 84), (84, 10)]
    assert sizes == [shape for kernel in kernels for shape in (kernel, kernel[-1:])]


@pytest.mark.parametrize(("make", "n"), [(mlp, 784 * 128 + 128 + 1290), (softmax_regression, 7850)])
def test_parameter_counts(make, n):
    assert make().count_params() == n


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 20, 3), (16, 16, 1), (8, 8, 1), (1, 1, 2)])
@pytest.mark.parametrize("classes", [2, 7])
def test_any_image_size_and_number_of_classes(build, shape, classes):
    logits = build(shape, classes)(np.zeros((3, *shape)))
    assert logits.shape == (3, classes)


def test_hidden_layers_are_those_asked_for():
    model = mlp((2, 2, 1), 3, hidden=(5, 6))
    assert [tuple(v.shape) for v in model.trainable_variables][::2] == [(4, 5), (5, 6), (6, 3)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((28, 28), 10), "input_shape"),
        (((28, 0, 1), 10), "input_shape"),
        (((28, 28, 1), 1), "classes"),
        (((28, 28, 1), 2.0), "classes"),
    ],
)
def test_bad_shapes_are_refused(arguments, words):
    for build in MODELS.values():
        with pytest.raises(ValueError, match=words):
            build(*arguments)
