"""Combine: the gradients of terms against those of single losses, steps against NumPy, the log, resuming."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import dense_net

import trainloop as tl

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

RNG = np.random.default_rng(0)
POINTS = {"a": RNG.normal(size=(8, 6)), "b": RNG.normal(size=(5, 6))}
RESIDUALS = {"a": lambda model, p: model(p)[:, 0] - 1, "b": lambda model, p: model(p)[:, :2] + 1}
WEIGHTS = {"b": 4.0}


def terms(model, batch):
    return {
        "a": tf.reduce_mean((model(batch["a"])[:, 0] - 1) ** 2),
        "b": tf.reduce_mean((model(batch["b"])[:, :2] + 1) ** 2),
    }


def two_outputs(regularizer=None):
    seed_generators()
    x = keras.Input((6,))
    h = keras.layers.Dense(4, "tanh", kernel_regularizer=regularizer)(x)
    return keras.Model(x, {name: keras.layers.Dense(1, name=name)(h) for name in ("a", "b")})


OBJECTIVES = {
    "loss_fn": lambda: tl.ModelObjective(dense_net(), loss_fn=terms, loss_weights=WEIGHTS, batch=POINTS),
    "residuals": lambda: tl.ModelObjective(dense_net(), residuals=RESIDUALS, loss_weights=WEIGHTS, batch=POINTS),
    "outputs": lambda: tl.ModelObjective(
        two_outputs(),
        "mse",
        (POINTS["a"], {"a": np.ones([8, 1]), "b": -np.ones([8, 1])}),
        loss_weights={"a": 1, "b": 4.0},
    ),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_terms_and_their_gradients_are_those_of_each_term_alone(kind):
    objective = OBJECTIVES[kind]()
    x = objective.vector.read() + 0.1
    losses, G = objective.term_gradients(x)
    f, g = objective.value_and_grad(x)
    assert objective.term_names == ("a", "b")
    np.testing.assert_allclose(tf.reduce_sum(losses), f, rtol=1e-14)
    np.testing.assert_allclose(tf.reduce_sum(G, 0), g, rtol=1e-12, atol=1e-15)
    h = 1e-6
    for i in RNG.integers(0, x.shape[0], 4):
        e = h * tf.one_hot(i, x.shape[0], dtype=x.dtype)
        differences = (objective.term_gradients(x + e)[0] - objective.term_gradients(x - e)[0]) / (2 * h)
        np.testing.assert_allclose(G[:, i], differences, rtol=1e-6, atol=1e-8)


def test_microbatches_and_closures_have_term_gradients_too():
    batch = {name: points[:5] for name, points in POINTS.items()}
    whole = tl.ModelObjective(dense_net(), residuals=RESIDUALS, batch=batch)
    parts = tl.ModelObjective(dense_net(), residuals=RESIDUALS, batch=batch, microbatch_size=2)
    x = whole.vector.read()
    for one, other in zip(whole.term_gradients(x), parts.term_gradients(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14)
    v = tf.Variable([1.0, 2.0], dtype=tf.float64)
    closure = tl.ClosureObjective(lambda: {"p": v[0] ** 2, "q": v[0] * v[1]}, [v])
    np.testing.assert_allclose(closure.term_gradients(tf.constant([3.0, 5.0], tf.float64))[1], [[6, 0], [5, 3]])


def test_losses_of_layers_are_a_row_of_their_own():
    model = two_outputs(keras.regularizers.L2(0.1))
    batch = POINTS["a"], {"a": np.ones([8, 1]), "b": -np.ones([8, 1])}
    objective = tl.ModelObjective(model, "mse", batch)
    x = objective.vector.read()
    losses, G = objective.term_gradients(x)
    assert objective.term_names == ("a", "b", "regularization")
    kernel = model.layers[1].kernel.numpy()
    np.testing.assert_allclose(losses[2], 0.1 * np.sum(kernel**2), rtol=1e-7)  # Keras rounds 0.1 to float32
    np.testing.assert_allclose(G[2, : kernel.size], 0.2 * kernel.ravel(), rtol=1e-7)
    np.testing.assert_array_equal(G[2, kernel.size :], 0)
    np.testing.assert_allclose(tf.reduce_sum(G, 0), objective.value_and_grad(x)[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("combiner", ["mgda", "config"])
@pytest.mark.thorough_after(1)
def test_the_regularization_is_no_party_to_the_conflict(combiner):
    """x <- x - lr (combine(rows of a and b) + row of the regularization)."""
    model = two_outputs(keras.regularizers.L2(0.1))
    batch = POINTS["a"], {"a": np.ones([8, 1]), "b": -np.ones([8, 1])}
    objective = tl.ModelObjective(model, "mse", batch)
    x = objective.vector.read()
    losses, G = objective.term_gradients(x)
    rule = tl.combiners.MGDA() if combiner == "mgda" else tl.combiners.ConFIG()
    expected = x - 0.1 * (rule.combine(losses[:2], G[:2], {})[0] + G[2])
    tl.TrainLoop(model, tl.Combine(tl.SimpleGD(0.1), combiner), "mse").run(batch, steps=1)
    np.testing.assert_allclose(objective.vector.read(), expected, rtol=1e-13)


def loop_of(optimizer, **options):
    return tl.TrainLoop(dense_net(), optimizer, residuals=RESIDUALS, loss_weights=WEIGHTS, **options)


@pytest.mark.thorough
def test_with_the_sum_it_is_the_method_inside():
    points = tl.Points(POINTS, seed=0)
    one = loop_of(tl.Adam(0.01)).run(points, steps=20).history
    other = loop_of(tl.Combine(tl.Adam(0.01), "sum")).run(points, steps=20).history
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-9)


def test_a_step_is_one_of_the_method_inside_on_the_combined_gradient():
    loop = loop_of(tl.Combine(tl.SimpleGD(0.1), tl.combiners.UPGrad()))
    objective = tl.ModelObjective(loop.model, residuals=RESIDUALS, loss_weights=WEIGHTS, batch=POINTS)
    x = objective.vector.read()
    losses, G = objective.term_gradients(x)
    g, _ = tl.combiners.UPGrad().combine(losses, G, {})
    result = loop.run(tl.Points(POINTS, seed=0), steps=1)
    np.testing.assert_allclose(objective.vector.read(), x - 0.1 * g, rtol=1e-13)
    assert result.evaluations["gradient"] == 2
    assert result.evaluations["f"] == 1
    np.testing.assert_allclose(result.history["loss"][0], objective.value(x), rtol=1e-14)
    np.testing.assert_allclose(result.history["term/b"][0], losses[1] / 4, rtol=1e-14)


def test_averages_and_metrics_move_once_in_a_step():
    """A method at rest around a network whose averages move: as in plain training."""
    batch = POINTS["a"], {"a": np.ones([8, 1]), "b": -np.ones([8, 1])}

    def trained(optimizer):
        seed_generators()
        x = keras.Input((6,))
        h = keras.layers.BatchNormalization()(keras.layers.Dense(4, "tanh")(x))
        model = keras.Model(x, {name: keras.layers.Dense(1, name=name)(h) for name in ("a", "b")})
        result = tl.TrainLoop(model, optimizer, "mse", metrics={"a": ["mae"], "b": ["mae"]}).run(batch, epochs=3)
        return model.get_weights(), result.epochs

    one, other = trained(tl.SimpleGD(1e-3)), trained(tl.Combine(tl.SimpleGD(1e-3), "sum"))
    for plain, combined in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(combined, plain, rtol=1e-11, atol=1e-14)
    for name in one[1]:
        if name != "seconds":
            np.testing.assert_allclose(other[1][name], one[1][name], rtol=1e-11)


def test_the_log_has_the_cosines_and_a_figure_shows_them(tmp_path):
    optimizer = tl.Combine(tl.Adam(0.01), "upgrad", terms=("b", "a"))
    loop = loop_of(optimizer, hooks=[tl.MetricsFile(tmp_path / "log.jsonl")])
    objective = tl.ModelObjective(loop.model, residuals=RESIDUALS, loss_weights=WEIGHTS, batch=POINTS)
    G = objective.term_gradients(objective.vector.read())[1].numpy()
    result = loop.run(tl.Points(POINTS, seed=0), steps=4)
    expected = G[0] @ G[1] / np.linalg.norm(G[0]) / np.linalg.norm(G[1])
    for name in ("cosine/b,a", "cosine/smallest"):
        np.testing.assert_allclose(result.history[name][0], expected, rtol=1e-12)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = [line["cosine/b,a"] for line in lines if line["kind"] == "step"]
    np.testing.assert_array_equal(logged, result.history["cosine/b,a"])
    (axes,) = [axes for axes in result.plot().axes if axes.get_title(loc="left").startswith("cosines")]
    assert len(axes.lines) == 2


@pytest.mark.parametrize("combiner", ["pcgrad", "cagrad"])
@pytest.mark.thorough_after(1)
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, combiner):
    def loop(folder):
        return loop_of(tl.Combine(tl.Adam(0.01), combiner), hooks=[tl.SaveCheckpoint(folder, 3)])

    points = tl.Points(POINTS, batch_size={"a": 4}, seed=0)
    whole = loop(tmp_path / "whole")
    whole.run(points, steps=8)
    loop(tmp_path / "cut").run(points, steps=5)
    again = loop(tmp_path / "cut")
    assert again.restore(tmp_path / "cut") in (3, 5)
    again.run(points, until_step=8)
    for one, other in zip(whole.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"eager": True}, {"microbatch_size": 3}], ids=str)
@pytest.mark.thorough
def test_every_way_to_run_takes_the_same_steps(options):
    points = tl.Points({"a": POINTS["a"], "b": POINTS["a"]}, seed=0)
    plain = loop_of(tl.BestSoFar(tl.Combine(tl.SimpleGD(0.05), "upgrad"))).run(points, steps=4).history
    other = loop_of(tl.BestSoFar(tl.Combine(tl.SimpleGD(0.05), "upgrad")), **options).run(points, steps=4).history
    assert plain["loss"][-1] < plain["loss"][0]
    for name in ("loss", "term/a", "inner/cosine/smallest"):
        np.testing.assert_allclose(other[name], plain[name], rtol=1e-10)


def test_minimize_reaches_a_point_where_no_term_can_fall_without_another_rising():
    """For |x - a|^2 and 9 |x - b|^2 these are the points between a and b."""
    a, b, v = np.array([1.0, 0.0]), np.array([0.0, 1.0]), tf.Variable([2.0, 3.0], dtype=tf.float64)

    def closure():
        return {"a": tf.reduce_sum((v - a) ** 2), "b": 9 * tf.reduce_sum((v - b) ** 2)}

    for combiner in ("upgrad", "mgda"):
        v.assign([2.0, 3.0])
        found = tl.minimize(
            closure, [v], tl.Combine(tl.SimpleGD(0.05), combiner, terms=("a", "b")), max_steps=400, gtol=0
        )
        assert abs(np.sum(found.x) - 1) < 1e-6, combiner
        assert 0 <= found.x[0] <= 1, combiner
        assert abs(found.history["cosine/a,b"][-1] + 1) < 1e-9


class Two(tl.Objective):
    """Two terms, by hand."""

    def value(self, x):
        return tf.reduce_sum(x**2)

    def value_and_grad(self, x):
        return self.value(x), 2 * x

    def term_gradients(self, x):
        return x**2, tf.linalg.diag(2 * x)


def test_an_objective_of_ones_own():
    found = tl.minimize(Two(), [1.0, -2.0], tl.Combine(tl.SimpleGD(0.25), "upgrad"), max_steps=40)
    assert found.f < 1e-6


def test_a_combiner_of_ones_own_is_saved_and_found_again():
    class Loudest(tl.combiners.Combiner):
        def combine(self, losses, gradients, state):
            return gradients[tf.argmax(losses)], state

    optimizer = tl.Combine(tl.Adam(0.01), Loudest(), terms=("a", "b"))
    again = tl.Combine.from_config(json.loads(json.dumps(optimizer.get_config())))
    assert isinstance(again.combiner, Loudest)
    assert (again.terms, again.inner.learning_rate) == (("a", "b"), optimizer.inner.learning_rate)
    tl.testing.check_combiner(Loudest())
    cagrad = tl.Combine(tl.Adam(), tl.combiners.CAGrad(0.3)).fresh()
    assert cagrad.combiner.c == 0.3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((tl.LBFGS, "upgrad"), "Combine wraps a GlobalVectorOptimizer"),
        ((tl.Adam, "upgrat"), r"combiner must be one of sum, .*did you mean 'upgrad'"),
        ((tl.Adam, 3), "combiner must be a trainloop.combiners.Combiner such as"),
        ((tl.Adam, "sum", "ab"), "terms must be distinct names"),
        ((tl.Adam, "sum", ("a", "a")), "terms must be distinct names"),
    ],
)
def test_bad_arguments(arguments, said):
    inner, *rest = arguments
    with pytest.raises(ValueError, match=said):
        tl.Combine(inner(), *rest)


def test_losses_without_terms_and_other_terms_are_named():
    with pytest.raises(
        ValueError, match="the objective is one number without named terms; give a loss that has several"
    ):
        tl.TrainLoop(dense_net(), tl.Combine(tl.Adam(), "sum"), "mse").run((POINTS["a"], np.ones([8, 3])), steps=1)
    with pytest.raises(
        ValueError, match=r"terms must name all terms of the loss, received \('a', 'c'\); they are 'a', 'b'"
    ):
        loop_of(tl.Combine(tl.Adam(), "sum", terms=("a", "c"))).run(tl.Points(POINTS, seed=0), steps=1)
    with pytest.raises(ValueError, match="the objective is one number"):
        tl.minimize(lambda x: tf.reduce_sum(x**2), [1.0], tl.Combine(tl.Adam(), "sum"))


def test_a_term_must_not_be_called_as_the_losses_of_layers():
    model, points = two_outputs(keras.regularizers.L2(0.1)), {"regularization": POINTS["a"]}
    objective = tl.ModelObjective(model, residuals={"regularization": lambda model, p: model(p)["a"]}, batch=points)
    with pytest.raises(ValueError, match="a term is called 'regularization'"):
        objective.term_gradients(objective.vector.read())


def test_a_term_that_depends_on_no_weight_is_named():
    constant = RESIDUALS | {"c": lambda model, p: tf.ones([3], "float64")}
    model = loop_of(tl.Combine(tl.Adam(0.01), "upgrad")).model
    objective = tl.ModelObjective(model, residuals=constant, batch=POINTS | {"c": np.ones((3, 1))})
    with pytest.warns(UserWarning, match="term 2 of the loss, counted from 0, does not depend"):
        G = objective.term_gradients(objective.vector.read())[1].numpy()
    np.testing.assert_array_equal(G[2], 0)
    assert np.all(np.any(G[:2] != 0, axis=1))
