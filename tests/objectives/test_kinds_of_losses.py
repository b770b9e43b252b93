"""Every kind of loss crossed with everything an objective tells of it, against *assign, run, read* and differences.

The reference is `assign_and_run`.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from assign_and_run import (
    Reference,
    accuracy,
    check_gauss_newton,
    check_gradient,
    check_hessian,
    check_same,
    check_value,
    close,
)
from environment import ROOT, seed_generators
from loss_kinds import KINDS, ON_ONE_DEVICE

from trainloop import LBFGS, ArrayData, ModelObjective, TrainLoop
from trainloop.objectives import derivatives

pytestmark = [
    pytest.mark.usefixtures("no_graph_rewriting"),
    pytest.mark.filterwarnings("ignore:the loss stops gradients"),
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis"),
]


def check_first_pass(reference, objective):
    """The same function as every other evaluation."""
    f, g = objective.first_pass()
    exact, _ = accuracy(reference)
    assert float(f) == pytest.approx(float(objective.value(tf.constant(reference.x))), rel=exact)
    close(g, objective.value_and_grad(tf.constant(reference.x))[1], exact)


def check_microbatches(reference, _objective):
    if not reference.kind.parts:
        return  # another function in parts: statistics, masks or counts of the samples of a part
    parts = ModelObjective(reference.model, batch=reference.kind.batch, microbatch_size=5, **reference.kind.arguments())
    check_same(reference, *parts.value_and_grad(tf.constant(reference.point)))


def check_compiled(reference, objective):
    """In the body of a loop, twice at the same point."""

    @tf.function(autograph=False)
    def twice(x):
        def body(i, fs):
            return i + 1, fs.write(i, objective.value_and_grad(x)[0])

        return tf.while_loop(lambda i, _: i < 2, body, (0, tf.TensorArray(x.dtype, 2)))[1].stack()

    first, second = twice(tf.constant(reference.point)).numpy()
    assert first == second == pytest.approx(reference.f(reference.point), rel=accuracy(reference)[0])


def check_xla(reference, objective):
    if not reference.kind.xla:
        return  # TensorFlow does not compile this
    if "noise" in reference.name or "dropout" in reference.name:
        return  # XLA draws other random numbers from the same seed
    function = tf.function(objective.value_and_grad, autograph=False, jit_compile=True)
    check_same(reference, *function(tf.constant(reference.point)))


def check_eager(reference, objective):
    tf.config.run_functions_eagerly(True)
    try:
        f, g = objective.value_and_grad(tf.constant(reference.point))
    finally:
        tf.config.run_functions_eagerly(False)
    check_same(reference, f, g)


CHECKS = (
    *(check_value, check_gradient, check_hessian, check_gauss_newton, check_microbatches, check_compiled),
    *(check_xla, check_eager),
)


# Their reference draws from a seed that is no part of the model; or what was traced outside of XLA is nothing for XLA.
ANEW = ("unseeded noise", "branches")


def begun(kind):
    """(reference, objective, values of all variables)."""
    reference = Reference(KINDS[kind])
    reference.name = kind
    objective = ModelObjective(reference.model, batch=reference.kind.batch, **reference.kind.arguments())
    return reference, objective, reference.values()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.thorough_after(1)
def test_an_objective_is_the_loss_that_its_user_wrote(kind):
    """One objective for all checks: what one of them left behind would show in the next."""
    reference, objective, before = begun(kind)
    for check in CHECKS:
        if kind in ANEW:
            reference, objective, before = begun(kind)
        check(reference, objective)
        for v, value, found in zip(reference.all, before, reference.values(), strict=True):
            np.testing.assert_array_equal(found, value, err_msg=f"{v.name} after {check.__name__}")
    check_first_pass(reference, objective)  # which writes what a training step writes


def test_there_are_enough_kinds():
    assert len(KINDS) >= 30


# --- What fails at a trial point, and what cannot be frozen ---


def far(reference):
    return tf.constant(1e3 * reference.point)


def test_an_operation_that_fails_at_a_trial_point_leaves_everything_as_it_was():
    reference = Reference(KINDS["an assertion"])
    objective = ModelObjective(reference.model, batch=reference.kind.batch, **reference.kind.arguments())
    before = reference.values()
    for method in (objective.value, objective.value_and_grad):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
            method(far(reference))
        for value, found in zip(before, reference.values(), strict=True):
            np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.thorough_after(1)
def test_a_run_in_which_an_operation_fails_ends_at_the_last_step(eager):
    """The fourth step of a loss that fails where its weights are large: x is the point after the third."""
    reference = Reference(KINDS["mean squared error"])
    model, (x, y) = reference.model, reference.kind.batch
    limit = tf.Variable(np.inf, dtype="float64")

    def loss_fn(model, batch):
        f = tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)
        with tf.control_dependencies([tf.debugging.assert_less(f, limit, message="too large")]):
            return tf.identity(f)

    loop = TrainLoop(model, LBFGS(m=3), loss_fn=loss_fn, eager=eager)
    data = ArrayData(x, y, batch_size=None)
    loop.run(data, steps=3)
    after = reference.values()
    limit.assign(float(loop.run(data, steps=1).history["loss"][0]) - 1e-9)
    for v, value in zip(reference.all, after, strict=True):
        v.assign(value)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        loop.run(data, steps=1)
    for value, found in zip(after, reference.values(), strict=True):
        np.testing.assert_array_equal(found, value)


class Noisy(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype)


class Clipped(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")

    def call(self, inputs, training=False):
        self.w.assign(tf.clip_by_value(self.w, -0.01, 0.01))
        return inputs @ self.w


def test_random_numbers_that_cannot_be_repeated_are_named_where_values_are_compared():
    model = keras.Sequential([keras.layers.Input((4,)), Noisy(), keras.layers.Dense(3)])
    batch = KINDS["mean squared error"].batch
    objective = ModelObjective(model, "mse", batch)
    assert np.isfinite(objective.first_pass()[0])
    with pytest.raises(ValueError, match=r"random numbers that cannot be repeated \(RandomStandardNormal at .*noisy"):
        objective.value(objective.vector.read())


def test_python_functions_inside_of_a_loss_are_named_once(recwarn):
    def loss_fn(model, batch):
        scale = tf.ensure_shape(tf.numpy_function(lambda: np.float64(2.0), [], tf.float64), [])
        return scale * tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)

    reference = Reference(KINDS["mean squared error"])
    objective = ModelObjective(reference.model, loss_fn=loss_fn, batch=reference.kind.batch)
    x = tf.constant(reference.point)
    with pytest.warns(UserWarning, match=r"calls Python functions \(PyFunc\w* at .*not frozen"):
        f = objective.value(x)
    assert float(f) == pytest.approx(2 * reference.f(reference.point), rel=1e-10)
    objective.value(x)
    assert not [w for w in recwarn if "Python functions" in str(w.message)]


@pytest.mark.parametrize(
    "layer", [Clipped, lambda: keras.layers.SpectralNormalization(keras.layers.Dense(3))], ids=["clipped", "spectral"]
)
def test_a_forward_pass_that_writes_its_own_weights_is_named(layer):
    model = keras.Sequential([keras.layers.Input((4,)), layer()])
    before = [v.numpy() for v in model.variables]
    with pytest.raises(ValueError, match=r"the forward pass writes weights that are trained \(.*(w|kernel)\)"):
        ModelObjective(model, "mse", KINDS["mean squared error"].batch)
    for v, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)


def test_variables_that_nobody_trains_are_named_once(caplog):
    scale = tf.Variable(2.0, dtype="float64", name="viscosity")
    reference = Reference(KINDS["mean squared error"])
    loss_fn = lambda model, batch: tf.reduce_mean((scale * model(batch[0]) - batch[1]) ** 2)  # noqa: E731
    for _ in range(2):
        ModelObjective(reference.model, loss_fn=loss_fn, batch=reference.kind.batch)
    (message,) = [record.message for record in caplog.records if "viscosity" in record.message]
    assert "reads variables that are no weights of the model and are not trained: viscosity" in message


@pytest.mark.thorough
def test_the_gauss_newton_matrix_of_probabilities_is_the_fisher_matrix():
    """G = J' (diag p - p p') J / N with J of the logits, for softmax; p (1 - p) for sigmoid."""
    x, y = KINDS["crossentropy of logits"].batch
    for outputs, activation, targets, loss in (
        (3, "softmax", y, keras.losses.SparseCategoricalCrossentropy()),
        (3, "softmax", np.eye(3)[y], keras.losses.CategoricalCrossentropy()),
        (1, "sigmoid", (y > 0).astype(float)[:, None], keras.losses.BinaryCrossentropy()),
    ):
        seed_generators()
        body = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(outputs)])
        model = keras.Sequential([*body.layers, keras.layers.Activation(activation)])
        objective = ModelObjective(model, loss, (x, targets))
        at = objective.vector.read()
        with tf.GradientTape() as tape:
            z = body(x)
        jacobians = tape.jacobian(z, body.trainable_variables)
        J = np.concatenate([np.reshape(j, [len(x), outputs, -1]) for j in jacobians], 2)
        p = (tf.nn.softmax(z) if outputs > 1 else tf.sigmoid(z)).numpy()
        inner = np.einsum("ni,ij->nij", p, np.eye(outputs)) - np.einsum("ni,nj->nij", p, p)
        expected = np.einsum("nia,nij,njb->ab", J, inner, J) / len(x)
        found = objective.ggn(at).numpy()
        close(found, expected, 1e-9)
        assert np.linalg.eigvalsh(found)[0] > -1e-12


def test_soft_targets_that_depend_on_the_weights_have_their_second_derivatives():
    """TensorFlow's fused crossentropy leaves them out."""

    def loss_fn(model, batch):
        z = model(batch[0], training=True)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=tf.nn.softmax(2 * z), logits=z))

    reference = Reference(KINDS["mean squared error"])
    reference.kind.by_hand, before = loss_fn, reference.kind.by_hand
    try:
        objective = ModelObjective(reference.model, loss_fn=loss_fn, batch=reference.kind.batch)
        check_hessian(reference, objective)
    finally:
        reference.kind.by_hand = before


# --- The page that says all this ---

PAGE = (ROOT / "docs" / "what-your-loss-may-do.md").read_text(encoding="utf-8")
ROWS = {
    row[0]: row[1:] for row in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.M)
}
del ROWS["kind of loss"]


def differs(objective):
    """Whether Hessian products, and Jacobian products, are taken by differences."""
    calls, original = [], derivatives.difference_of_gradients
    derivatives.difference_of_gradients = lambda *arguments: calls.append(1) or original(*arguments)
    x = objective.vector.read()
    try:
        for product in (objective.hvp, objective.ggnvp):
            before = len(calls)
            try:
                product(x, tf.ones_like(x))
                yield "differences" if len(calls) > before else "exact"
            except ValueError:
                yield "raises"
    finally:
        derivatives.difference_of_gradients = original


@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_the_page_is_true(name):
    """Values and gradients are exact by the product above; replicas are tried in `replica_cases`."""
    kind = KINDS[name]
    _, hessian, gauss_newton, parts, on_replicas = ROWS[name]
    objective = ModelObjective(kind.make(), batch=kind.batch, **kind.arguments())
    assert list(differs(objective)) == [hessian, gauss_newton]
    assert (parts == "exact") == kind.parts
    assert (on_replicas == "raises") == (name in ON_ONE_DEVICE)
