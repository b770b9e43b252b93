"""Runs on points of named terms: draws, terms in the log, extra variables, resuming, evaluation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

import trainloop as tl
from trainloop.data.points import draw

RNG = np.random.default_rng(0)
WALL = RNG.uniform(size=(6, 2))


def net():
    seed_generators()
    layers = [keras.layers.Dense(k, a, dtype="float64") for k, a in ((5, "tanh"), (1, None))]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


def residuals(nu=1.0):
    return {"pde": lambda m, p: nu * m(p) - tf.reduce_sum(p, 1, keepdims=True), "wall": lambda m, p: m(p) - 1}


def points(**options):
    return tl.Points({"pde": tl.Box([0, 0], [1, 2], 40, "float64"), "wall": WALL}, **options)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.thorough_after(1)
def test_draws_are_a_function_of_seed_and_step(jit_compile):
    data = points(batch_size={"pde": 8}, seed=3)
    loop = tl.TrainLoop(
        net(), tl.SimpleGD(0.1), residuals=residuals(), loss_weights={"wall": 2.0}, jit_compile=jit_compile
    )
    result = loop.run(data, steps=5)
    model = net()
    variables = [v.value for v in model.trainable_variables]
    for step in range(5):
        batch = draw(data.values, data.batch_sizes, tf.constant(3), tf.constant(step))
        assert batch["pde"].shape == (8, 2)
        np.testing.assert_array_equal(batch["wall"], WALL)
        with tf.GradientTape() as tape:
            pde, wall = (tf.reduce_mean(residuals()[k](model, batch[k]) ** 2) for k in ("pde", "wall"))
            f = pde + 2 * wall
        assert result.history["loss"][step] == pytest.approx(float(f), rel=1e-10)
        assert result.history["term/pde"][step] == pytest.approx(float(pde), rel=1e-10)
        assert result.history["term/wall"][step] == pytest.approx(float(wall), rel=1e-10)
        for variable, gradient in zip(variables, tape.gradient(f, variables), strict=True):
            variable.assign_sub(0.1 * gradient)


def test_draws_differ_and_stay_inside():
    data = points(batch_size={"pde": 8})
    first, second = (draw(data.values, data.batch_sizes, tf.constant(0), tf.constant(k))["pde"].numpy() for k in (0, 1))
    assert not np.array_equal(first, second)
    everything = data.values["pde"].numpy()
    assert all((row == everything).all(1).any() for row in first)
    assert everything.min() >= 0
    assert 1 < everything[:, 1].max() <= 2


@pytest.mark.thorough
def test_a_run_that_is_resumed_goes_on_with_the_same_bits(tmp_path):
    def loop(nu, hooks=()):
        return tl.TrainLoop(net(), tl.LBFGS(), residuals=residuals(nu), extra_variables=[nu], hooks=hooks)

    def variable():
        return tf.Variable(0.5, dtype=tf.float64, name="nu")

    data = points(batch_size={"pde": 8})
    whole = variable()
    expected = loop(whole)
    expected.run(data, steps=7)
    first = loop(variable(), [tl.SaveCheckpoint(tmp_path, every_steps=4)])
    first.run(points(batch_size={"pde": 8}), steps=4)
    nu = variable()
    second = loop(nu)
    assert second.restore(tmp_path) == 4
    second.run(points(batch_size={"pde": 8}), until_step=7)
    for a, b in zip(second.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert nu.numpy() == whole.numpy() != 0.5


def test_other_points_or_draws_are_another_data_set(tmp_path):
    loop = tl.TrainLoop(
        net(), tl.SimpleGD(0.1), residuals=residuals(), hooks=[tl.SaveCheckpoint(tmp_path, every_steps=2)]
    )
    loop.run(points(), steps=2)
    other = tl.TrainLoop(net(), tl.SimpleGD(0.1), residuals=residuals())
    other.restore(tmp_path)
    with pytest.raises(ValueError, match="another data set"):
        other.run(points(seed=1), steps=3)


def test_evaluation_takes_all_points_at_once():
    loop = tl.TrainLoop(net(), tl.SimpleGD(0.1), residuals=residuals(), loss_weights={"wall": 2.0})
    data = points(batch_size={"pde": 8})
    found = loop.evaluate(data)
    pde, wall = (float(tf.reduce_mean(residuals()[k](loop.model, data.values[k]) ** 2)) for k in ("pde", "wall"))
    assert found == pytest.approx({"loss": pde + 2 * wall, "term/pde": pde, "term/wall": wall}, rel=1e-12)
    assert loop.evaluate({"pde": WALL, "wall": WALL[:2]}).keys() == found.keys()


@pytest.mark.thorough
def test_extra_variables_are_trained_and_the_best_kept():
    nu = tf.Variable(0.2, dtype=tf.float64, name="nu")
    model = net()
    arrays = tl.ArrayData(WALL, np.sum(WALL, 1), batch_size=None)
    loop = tl.TrainLoop(
        model,
        tl.LBFGS(),
        residuals=lambda m, b: nu * m(b[0])[:, 0] - b[1],
        extra_variables=[nu],
        hooks=[tl.RestoreBest("val_loss")],
    )
    result = loop.run(arrays, steps=10, validation_data=arrays)
    assert result.history["loss"][-1] < 0.1 * result.history["loss"][0]
    assert nu.numpy() != 0.2
    assert loop.evaluate(arrays)["loss"] == pytest.approx(min(result.epochs["val_loss"]), rel=1e-12)


@pytest.mark.parametrize("eager", [False, True])
def test_terms_of_a_loss_function_are_logged(eager):
    def loss(model, batch):
        return {
            "fit": tf.reduce_mean(model(batch[0]) ** 2),
            "size": 0.1 * tf.reduce_sum(model.trainable_variables[0] ** 2),
        }

    loop = tl.TrainLoop(net(), tl.SimpleGD(0.1), loss_fn=loss, loss_weights={"fit": 3.0}, eager=eager)
    result = loop.run((WALL, WALL[:, 0]), epochs=3, validation_data=(WALL, WALL[:, 0]))
    terms = 3 * result.history["term/fit"] + result.history["term/size"]
    np.testing.assert_allclose(terms, result.history["loss"], rtol=1e-12)
    assert {"val_term/fit", "val_term/size", "val_loss"} <= result.epochs.keys()


def test_microbatches_add_the_terms_up():
    def run(size):
        loop = tl.TrainLoop(
            net(),
            tl.SimpleGD(0.1),
            residuals={"a": lambda m, p: m(p), "b": lambda m, p: m(p) - 1},
            microbatch_size=size,
        )
        return loop.run({"a": WALL, "b": WALL[::-1].copy()}, steps=2).history

    whole, parts = run(None), run(4)
    for name in ("loss", "term/a", "term/b"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tl.Points([WALL]), "points must be a dict"),
        (
            lambda: tl.TrainLoop(net(), tl.Adam(), residuals=residuals()).run({"pde": WALL, "wal": WALL}, steps=1),
            "points for 'wal', which no residual is called .did you mean 'wall'",
        ),
        (lambda: tl.Points({"a": (WALL, WALL[:2])}), r"points\['a'\] must be arrays \[N, ...\] of one length"),
        (lambda: tl.Points({"a": 1.0}), "received shapes"),
        (lambda: tl.Points({"a": WALL * np.nan}), "finite"),
        (lambda: tl.Points({"a": lambda seed, count: WALL}), "needs an attribute count"),
        (lambda: points(batch_size=3), "batch_size must be a dict"),
        (lambda: points(batch_size={"pda": 3}), "did you mean 'pde'"),
        (lambda: points(batch_size={"wall": 7}), "at most the 6 points there are, received 7"),
        (lambda: points(seed=-1), "seed must be an integer of at least 0"),
        (lambda: tl.Box([1.0], [0.0], 3), "low must be at most high"),
        (lambda: tl.Box([0.0, 1.0], [1.0], 3), r"low and high must be \[d\] each"),
        (lambda: tl.Box([0.0], [1.0], 0), "count must be an integer of at least 1"),
        (lambda: tl.TrainLoop(net(), tl.Adam(), residuals=residuals(), metrics=["mae"]), "metrics need loss"),
        (lambda: tl.TrainLoop(net(), tl.Adam(), residuals=residuals(), extra_variables=[3.0]), "received 3.0"),
        (
            lambda: tl.TrainLoop(net(), tl.Adam(), residuals=residuals()).run(points(), epochs=2),
            "the data are infinite, so an epoch has no end; give steps",
        ),
    ],
)
def test_what_cannot_be_run(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_weight_of_the_model_is_no_extra_variable():
    model = net()
    with pytest.raises(ValueError, match="is a weight of the model; leave it out"):
        tl.TrainLoop(model, tl.Adam(), residuals=residuals(), extra_variables=model.trainable_variables[:1])
