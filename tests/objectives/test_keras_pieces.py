"""Every layer, activation and loss that Keras has: f, g and second derivatives, or an error that says why not.

The references are assign-and-run and central differences, see `assign_and_run`.
"""

import numpy as np
import pytest
from assign_and_run import Reference, check_gauss_newton, check_gradient, check_hessian, check_value
from keras_pieces import ACTIVATIONS, LAYERS, LOSSES

from trainloop import ModelObjective

pytestmark = [
    pytest.mark.usefixtures("no_graph_rewriting"),
    pytest.mark.filterwarnings("ignore:the loss stops gradients"),
]

PIECES = {**LAYERS, **ACTIVATIONS, **LOSSES}
BY_DEFAULT = ("PReLU", "BinaryFocalCrossentropy")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.thorough) for n in PIECES]
)
@pytest.mark.thorough_after(1)
def test_an_objective_is_right_about_everything_that_keras_has(name):
    reference = Reference(PIECES[name])
    objective = ModelObjective(reference.model, reference.kind.loss, reference.kind.batch)
    before = reference.values()
    for check in (check_value, check_gradient, check_hessian, check_gauss_newton):
        check(reference, objective)
    for v, value, found in zip(reference.all, before, reference.values(), strict=True):
        np.testing.assert_array_equal(found, value, err_msg=v.name)
