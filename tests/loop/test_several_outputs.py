"""Models with several outputs against `model.fit` with Keras's SGD: weights, epoch losses, metrics, and their names."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

import trainloop as tl
from trainloop.objectives.model import ModelObjective

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")
thorough = pytest.mark.thorough

N = 24
X = np.random.default_rng(0).normal(size=(N, 5))
Y = np.random.default_rng(1).normal(size=(N, 1))
WEIGHT = np.linspace(0, 2, N)

TWO = {"list": lambda a, b, c: [a, b], "dict": lambda a, b, c: {"p": a, "q": b}}
NESTED = {"nested": lambda a, b, c: {"p": a, "r": [b, c]}}
ONE = {"one in a list": lambda a, b, c: [a], "one in a dict": lambda a, b, c: {"p": a}}


def net(kind):
    seed_generators()
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(3, "tanh", kernel_regularizer="l2")(inputs)
    outputs = [keras.layers.Dense(1, name=name)(hidden) for name in "abc"]
    return keras.Model(inputs, {**TWO, **NESTED, **ONE}[kind](*outputs))


def fitted(model, targets, weight, loss, metrics=None, loss_weights=None):
    model.compile(keras.optimizers.SGD(0.1), loss, loss_weights=loss_weights, metrics=metrics, jit_compile=False)
    options = {"sample_weight": weight, "batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit(X, targets, **options).history


def trained(model, targets, weight, loss, metrics=(), loss_weights=None, **options):
    loop = tl.TrainLoop(model, tl.SimpleGD(0.1), loss, metrics=metrics, loss_weights=loss_weights, **options)
    data = tl.ArrayData(X, targets, 8, shuffle=False, sample_weight=weight)
    epochs = loop.run(data, epochs=2).epochs
    return {name: list(values) for name, values in epochs.items() if name not in ("epoch", "step", "seconds")}


def assert_same_as_fit(kind, targets, weight, *arguments, **options):
    theirs, ours = net(kind), net(kind)
    wanted = fitted(theirs, targets, weight, *arguments)
    found = trained(ours, targets, weight, *arguments, **options)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "targets", "weight", "arguments"),
    [
        ("list", [Y, 2 * Y], None, ("mse", ["mae", ["mse", "mae"]])),
        ("list", [Y, 2 * Y], WEIGHT, (["mse", keras.losses.Huber], None, [1.0, 2.5])),
        ("list", {"a": Y, "b": 2 * Y}, None, ({"b": "mae", "a": "mse"}, {"b": ["mse"]}, {"b": 0.5, "a": 2.0})),
        ("list", [Y], None, (["mse", None],)),
        ("dict", {"p": Y, "q": 2 * Y}, {"q": WEIGHT[::-1].copy(), "p": WEIGHT}, ("mse", {"p": "mae"})),
        pytest.param("dict", [Y, 2 * Y], None, (["mse", "mae"], ["mae", "mse"]), marks=thorough),
        pytest.param("nested", {"p": Y, "r": [Y, -Y]}, None, ("mse",), marks=thorough),
        ("nested", {"p": Y, "r": [Y, -Y]}, None, ({"p": "mse", "r": ["mae", "mse"]}, {"p": "mae", "r": ["mse", []]})),
        pytest.param("one in a list", Y, WEIGHT, ("mse", ["mae"]), marks=thorough),
        ("one in a dict", {"p": Y}, None, ({"p": "mse"}, {"p": ["mae"]}, 2.0)),
    ],
)
# Both say it of an output without a loss.
@pytest.mark.filterwarnings("ignore:Gradients do not exist", "ignore:the loss does not depend on b/kernel")
@pytest.mark.thorough_after(1)
def test_outputs_are_trained_and_logged_as_by_fit(kind, targets, weight, arguments):
    loss = tf.nest.map_structure(lambda one: one() if isinstance(one, type) else one, arguments[0])
    assert_same_as_fit(kind, targets, weight, loss, *arguments[1:])


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{"microbatch_size": 3}, {"jit_compile": True}, {"eager": True}])
def test_microbatches_and_engines_change_nothing(options):
    targets, weight = {"p": Y, "q": 2 * Y}, {"p": WEIGHT, "q": WEIGHT[::-1].copy()}
    assert_same_as_fit(
        "dict", targets, weight, {"p": "mse", "q": "mae"}, {"q": ["mae"]}, {"p": 3.0, "q": 1.0}, **options
    )


@pytest.mark.thorough
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_the_losses_of_parts_are_logged_as_those_of_the_whole(reduction):
    losses = [keras.losses.MeanSquaredError(reduction=reduction), keras.losses.MeanAbsoluteError(reduction=reduction)]
    whole = trained(net("list"), [Y, 2 * Y], WEIGHT, losses, ["mse", "mae"])
    parts = trained(net("list"), [Y, 2 * Y], WEIGHT, losses, ["mse", "mae"], microbatch_size=3)
    assert parts.keys() == whole.keys() >= {"a_loss", "b_loss", "a_mse", "b_mae"}
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-6, err_msg=name)


def test_validation_is_logged_as_by_fit():
    theirs, ours = net("list"), net("list")
    theirs.compile(jit_compile=False, loss=["mse", "mae"], metrics=["mae", "mse"])
    wanted = theirs.evaluate(X, [Y, 2 * Y], batch_size=8, verbose=0, return_dict=True)
    loop = tl.TrainLoop(ours, tl.SimpleGD(0.1), ["mse", "mae"], metrics=["mae", "mse"])
    assert loop.evaluate(tl.ArrayData(X, [Y, 2 * Y], 8)) == pytest.approx(wanted, rel=1e-6)


def test_the_losses_of_unequal_batches_are_means_over_samples():
    """`fit` takes the mean over batches for the losses of outputs, and that over samples for their sum."""
    loop = tl.TrainLoop(net("list"), tl.SimpleGD(0.1), "mse")
    whole, parts = (loop.evaluate(tl.ArrayData(X, [Y, 2 * Y], size)) for size in (None, 10))
    assert parts == pytest.approx(whole, rel=1e-6)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)

    def call(self, inputs):
        return {"p": self.a(inputs), "q": self.b(inputs)}


def test_models_that_do_not_say_what_they_put_out():
    model = Subclassed()
    model(X)
    loop = tl.TrainLoop(model, tl.SimpleGD(0.1), {"p": "mse", "q": "mae"}, metrics={"q": ["mse"]})
    found = loop.evaluate((X, {"p": Y, "q": Y}))
    outputs = {name: z.numpy() for name, z in model(X).items()}
    expected = {"p_loss": np.mean((outputs["p"] - Y) ** 2), "q_loss": np.mean(np.abs(outputs["q"] - Y))}
    expected |= {"loss": sum(expected.values()), "q_mse": np.mean((outputs["q"] - Y) ** 2)}
    assert found == pytest.approx(expected, rel=1e-6)
    total = tl.TrainLoop(model, tl.SimpleGD(0.1), "mse").evaluate((X, {"p": Y, "q": Y}))
    assert total == pytest.approx({"loss": expected["p_loss"] + expected["q_mse"]}, rel=1e-6)


@pytest.mark.parametrize("kind", [pytest.param("list", marks=thorough), "nested"])
@pytest.mark.thorough
def test_gauss_newton_products_are_those_of_the_residuals_of_all_outputs(kind):
    model = net(kind)
    targets = tf.nest.map_structure(lambda _: Y, model.output)
    weights = {"list": [1.0, 3.0], "nested": {"p": 1.0, "r": [3.0, 0.5]}}[kind]
    objective = ModelObjective(model, "mse", (X, targets), loss_weights=weights)
    x = objective.vector.read()
    with tf.GradientTape() as tape:
        scaled = [
            (2 * w / N) ** 0.5 * z
            for w, z in zip(tf.nest.flatten(weights), tf.nest.flatten(model(tf.constant(X))), strict=True)
        ]
        residuals = tf.concat(scaled, 0)[:, 0]
    J = np.concatenate(
        [np.reshape(g, [len(residuals), -1]) for g in tape.jacobian(residuals, model.trainable_variables)], 1
    )
    regularised = np.zeros(len(x))
    regularised[:15] = 2 * 0.01
    np.testing.assert_allclose(objective.ggn(x), J.T @ J + np.diag(regularised), atol=1e-9)


def test_weights_may_be_variables_that_change():
    weight = tf.Variable(1.0, dtype="float64")
    loop = tl.TrainLoop(net("list"), tl.SimpleGD(0.1), "mse", loss_weights=[1.0, weight])
    before = loop.evaluate((X, [Y, Y]))
    weight.assign(3.0)
    after = loop.evaluate((X, [Y, Y]))
    assert after["loss"] == pytest.approx(before["loss"] + 2 * before["b_loss"], rel=1e-6)
    assert after["b_loss"] == before["b_loss"]


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("dict", {"loss": {"p": "mse"}}, "loss must have the keys 'p', 'q', received one without 'q'; None stands for"),
        ("list", {"loss": {"a": "mse", "x": "mse"}}, "keys 'a', 'b', received one without 'b' and with 'x'"),
        (
            "list",
            {"loss": ["mse"]},
            r"loss must have an entry for each output, .* 2 \('0', '1'\); received 1",
        ),
        ("list", {"loss": [["mse", "mae"], "mse"]}, "one entry for an output, received a list; add losses up"),
        ("list", {"loss": [None, None]}, "at least one loss"),
        ("dict", {"loss": "mse", "loss_weights": {"p": 1.0}}, "loss_weights must have the keys .* without 'q'"),
        ("dict", {"loss": {"p": "mse", "q": "mse"}, "loss_weights": 2.0}, "a number for each loss"),
        ("list", {"loss": "mse", "loss_weights": [1.0, "2"]}, "loss_weights must be a finite number, received '2'"),
        ("list", {"loss": "mse", "metrics": ["mae"]}, "metrics must have an entry for each output"),
        ("dict", {"loss": "mse", "metrics": {"x": ["mae"]}}, "metrics must have the keys 'p', 'q', .* with 'x'"),
        ("list", {"loss": [keras.losses.Huber, "mse"]}, r"an object and not a class; write loss=Huber\(...\)"),
        ("list", {"loss_fn": lambda model, batch: 0.0, "loss_weights": [1.0, 1.0]}, "inside of loss_fn"),
    ],
)
def test_what_fits_no_outputs_is_refused_when_the_loop_is_made(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        tl.TrainLoop(net(kind), tl.SimpleGD(0.1), **arguments)


@pytest.mark.parametrize(
    ("kind", "targets", "weight", "words"),
    [
        ("dict", {"p": Y}, None, "targets must have the keys 'p', 'q', received one without 'q'"),
        ("list", {"a": Y, "c": Y}, None, "targets must have the keys 'a', 'b', received one without 'b' and with 'c'"),
        ("list", Y, None, r"targets must have an entry for each output, of which there are 2 .*; received one"),
        ("dict", {"p": Y, "q": Y}, {"p": WEIGHT}, "sample_weight must have the keys .* without 'q'"),
        ("list", [Y, np.ones((N, 2, 2))], None, r"targets of the output 'b' .*\[N, 1\], received \[N, 2, 2\]"),
    ],
)
def test_data_that_fit_no_outputs_are_refused_before_the_first_step(kind, targets, weight, words):
    loop = tl.TrainLoop(net(kind), tl.SimpleGD(0.1), "mse")
    with pytest.raises(ValueError, match=words):
        loop.run(tl.ArrayData(X, targets, 8, sample_weight=weight), epochs=1)
    assert loop.optimizer.iterations == 0


def test_class_numbers_of_an_output_are_checked():
    inputs = keras.Input((5,))
    outputs = {"p": keras.layers.Dense(1)(inputs), "q": keras.layers.Dense(3, "softmax")(inputs)}
    loss = {"p": "mse", "q": "sparse_categorical_crossentropy"}
    loop = tl.TrainLoop(keras.Model(inputs, outputs), tl.SimpleGD(0.1), loss)
    with pytest.raises(ValueError, match=r"targets of the output 'q': expected class numbers in 0..2, received 3 at"):
        loop.run((X, {"p": Y, "q": np.arange(N) % 4}), epochs=1)


def of_keras(model, targets, weight, **arguments):
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False, **arguments)
    options = {"sample_weight": weight, "batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit(X, targets, **options).history


@pytest.mark.parametrize(
    ("kind", "targets", "weight", "arguments"),
    [
        ("list", [Y, 2 * Y], [WEIGHT, WEIGHT[::-1]], {"metrics": ["mae", "mae"], "weighted_metrics": ["mae", ["mse"]]}),
        ("dict", {"p": Y, "q": 2 * Y}, {"p": WEIGHT, "q": WEIGHT[::-1]}, {"weighted_metrics": {"q": ["mae"]}}),
        ("list", [Y, 2 * Y], None, {"weighted_metrics": ["mae", "mse"]}),
        ("one in a list", Y, WEIGHT, {"metrics": ["mae"], "weighted_metrics": ["mae", "mse"]}),
    ],
)
@pytest.mark.parametrize("options", [{}, {"microbatch_size": 3}], ids=["whole", "in parts"])
@pytest.mark.thorough_after(5)  # in parts, all but the first
def test_weighted_metrics_are_those_of_fit(kind, targets, weight, arguments, options):
    wanted = of_keras(net(kind), targets, weight, **arguments)
    loop = tl.TrainLoop(net(kind), tl.SimpleGD(0.1), "mse", **arguments, **options)
    found = loop.run(tl.ArrayData(X, targets, 8, shuffle=False, sample_weight=weight), epochs=2).epochs
    assert found.keys() - {"epoch", "step", "seconds"} == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
