"""f and g of the last step on a batch that does not change: how often they are taken, and when they do not count."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import weights

import trainloop as tl

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(12, 2))
Y = np.sin(3 * X[:, 0]) * X[:, 1]


def net(*extra, width=4):
    seed_generators()
    layers = [keras.layers.Dense(width, "tanh", dtype="float64"), *extra, keras.layers.Dense(1, dtype="float64")]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


class Descent(tl.GlobalObjectiveOptimizer):
    """x - 0.1 g, and f and g there: one evaluation a step besides the first pass."""

    def __init__(self, tells=True, name="descent"):
        super().__init__(None, name=name)
        self.tells = tells

    def init_state(self, x):
        return {"f_new": tf.zeros([], x.dtype)}

    def update(self, x, f, g, state, objective):
        x_new = x - 0.1 * g
        f_new, g_new = objective.value_and_grad(x_new)
        return (x_new, {"f_new": f_new}, (f_new, g_new)) if self.tells else (x_new, {"f_new": f_new})

    def get_config(self):
        return {**super().get_config(), "tells": self.tells}


def residual(model, batch):
    return model(batch[0])[:, 0] - batch[1]


def arrays(size=None, count=12):
    return tl.ArrayData(X[:count], Y[:count], size)


NAMED = {"a": lambda m, p: m(p)[:, 0] - p[:, 1], "b": lambda m, p: m(p) - 1}


def points(**options):
    return tl.Points({"a": tl.Box([0, 0], [1, 1], 20, "float64"), "b": X}, **options)


def passes(result):
    """In which steps there was a first pass, of `Descent`: gradients besides the one of each step."""
    return (np.diff(result.history["evaluations/gradient"], prepend=0) - 1).tolist()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("make", [tl.LBFGS, tl.BFGS, tl.NonlinearCG])
@pytest.mark.thorough_after(1)
def test_as_many_evaluations_as_minimize_and_the_same_way(make, named):
    data = {"a": X, "b": X[::-1].copy()} if named else (X, Y)
    residuals = NAMED if named else residual
    loop = tl.TrainLoop(net(), make(), residuals=residuals)
    result = loop.run(data if named else arrays(), steps=12)
    batch = tf.nest.map_structure(tf.constant, data)
    objective = tl.ModelObjective(net(), residuals=residuals, batch=batch)
    expected = tl.minimize(objective, objective.vector.read(), make(), max_steps=12, gtol=0.0)
    np.testing.assert_allclose(result.history["loss"], expected.history["f"], rtol=1e-7)
    np.testing.assert_allclose(loop.optimizer._vector.read(), expected.x, rtol=1e-5, atol=1e-8)
    for kind, count in expected.evaluations.items():
        assert abs(result.evaluations[kind] - count) <= 1, kind


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"eager": True}], ids=["graph", "xla", "eager"])
@pytest.mark.parametrize("data", [arrays, points])
@pytest.mark.thorough_after(1)
def test_a_batch_that_does_not_change_is_evaluated_once_a_step(data, options):
    residuals = residual if data is arrays else NAMED
    result = tl.TrainLoop(net(), Descent(), residuals=residuals, **options).run(data(), steps=6)
    assert passes(result) == [1, 0, 0, 0, 0, 0]
    # Terms are those of the last evaluation. As Python, they take one of their own where there is no first pass.
    assert result.evaluations["f"] == (12 if data is points and "eager" in options else 7)
    np.testing.assert_array_equal(result.history["loss"][1:], result.history["f_new"][:-1])
    # The same with a first pass in every step.
    twice = tl.TrainLoop(net(), Descent(tells=False), residuals=residuals, **options).run(data(), steps=6)
    assert passes(twice) == [1] * 6
    for name in ("loss", *(["term/a", "term/b"] if data is points else [])):
        np.testing.assert_allclose(result.history[name], twice.history[name], rtol=1e-12)


@pytest.mark.thorough
def test_microbatches_hand_on_too_and_add_their_terms_up():
    residuals = {"a": NAMED["a"], "b": NAMED["b"]}
    data = {"a": X, "b": X[::-1].copy()}
    whole = tl.TrainLoop(net(), Descent(), residuals=residuals).run(data, steps=3)
    parts = tl.TrainLoop(net(), Descent(), residuals=residuals, microbatch_size=5).run(data, steps=3)
    assert passes(parts) == [1, 0, 0]
    for name in ("loss", "term/a", "term/b"):
        np.testing.assert_allclose(parts.history[name], whole.history[name], rtol=1e-12)


class At(tl.Hook):
    """Does something after a step."""

    def __init__(self, step, action):
        super().__init__(1)
        self.step, self.action = step, action

    def on_start(self, loop):
        self.loop = loop

    def on_step(self, progress):
        if progress.step == self.step:
            self.action(self.loop)


def move_x(loop):
    loop.model.trainable_variables[0].assign(loop.model.trainable_variables[0] * 0.9)


@pytest.mark.parametrize("steps_per_call", [None, 1])
@pytest.mark.parametrize("change", ["x", "weight", "count", "points", "nothing", "evaluation"])
@pytest.mark.thorough_after(1)
def test_what_changes_f_is_noticed(change, steps_per_call):
    weight = tf.Variable(2.0, dtype=tf.float64, trainable=False)
    power = tf.Variable(1, trainable=False)  # no float, and it changes f all the same
    actions = {
        "x": move_x,
        "weight": lambda loop: weight.assign(3.0),
        "count": lambda loop: power.assign(2),
        "points": lambda loop: None,
        "nothing": lambda loop: None,
        "evaluation": lambda loop: (loop.evaluate(points()), loop.inspect()),
    }
    hooks = [At(3, actions[change])]
    hooks += [tl.Resample("a", every_steps=3, candidates=50)] if change == "points" else []
    before = []
    recorder = At(None, None)
    recorder.on_step = lambda progress: before.append((weights(loop.model), feed().values["a"].numpy()))
    feed = lambda: loop.resumable().run.feed  # noqa: E731
    residuals = {**NAMED, "b": lambda m, p: (m(p) - 1) ** tf.cast(power, p.dtype)}
    options = {"residuals": residuals, "loss_weights": {"b": weight}, "steps_per_call": steps_per_call}
    loop = tl.TrainLoop(net(), Descent(), hooks=[*hooks, recorder], **options)
    result = loop.run(points(), steps=5)
    invalid = change not in ("nothing", "evaluation")
    assert passes(result) == [1, 0, 0, int(invalid), 0]
    # By hand, at the weights and the points before step 4.
    model = net()
    x, chosen = before[2]
    tl.VariableVector(model.trainable_variables).assign(x)
    b = (model(X).numpy() - 1) ** (2 if change == "count" else 1)
    a = model(chosen).numpy()[:, 0] - chosen[:, 1]
    f = np.mean(a**2) + (3.0 if change == "weight" else 2.0) * np.mean(b**2)
    assert result.history["loss"][3] == pytest.approx(f, rel=1e-10)


@pytest.mark.thorough
def test_other_data_and_weights_set_between_two_runs_are_noticed():
    loop = tl.TrainLoop(net(), Descent(), residuals=residual)
    whole, less = arrays(), arrays(count=8)
    assert passes(loop.run(whole, steps=2)) == [1, 0]
    counts = [loop.run(data, steps=2).evaluations["gradient"] for data in (whole, less, less, whole, arrays(6), whole)]
    # Two each, and a first pass where the data are others; with two batches a first pass in every step.
    assert counts == [2, 3, 2, 3, 4, 3]
    move_x(loop)
    model = net()
    model.set_weights(loop.model.get_weights())
    result = loop.run(whole, steps=1)
    assert result.evaluations["gradient"] == 2
    assert result.history["loss"][0] == pytest.approx(np.mean((model(X).numpy()[:, 0] - Y) ** 2), rel=1e-10)


def training(model, batch):
    return model(batch[0], training=True)[:, 0] - batch[1]


def opaque(model, batch):
    return residual(model, batch) + tf.ensure_shape(tf.numpy_function(lambda: np.float64(0), [], tf.float64), [])


LARGE = tf.Variable(np.zeros(1000), trainable=False)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (lambda: net(keras.layers.BatchNormalization(dtype="float64")), {"residuals": training}),
        (lambda: net(keras.layers.Dropout(0.1, seed=1, dtype="float64")), {"residuals": training}),
        (net, {"residuals": opaque}),
        (net, {"residuals": lambda m, b: residual(m, b) + tf.reduce_sum(LARGE)}),
        (net, {"loss": "mse", "metrics": ["mae"]}),
    ],
    ids=["averages", "seeds", "opaque", "large", "metrics"],
)
@pytest.mark.filterwarnings("ignore:the weights are float64", "ignore:the loss calls Python functions")
@pytest.mark.thorough_after(1)
def test_where_f_is_taken_anew(model, options):
    y = Y[:, None] if "loss" in options else Y
    result = tl.TrainLoop(model(), Descent(), **options).run(tl.ArrayData(X, y, None), steps=3)
    assert passes(result) == [1, 1, 1]


def test_a_loss_that_reads_the_count_of_steps_is_another_one_in_every_step():
    optimizer = Descent()
    growing = lambda m, b: residual(m, b) * (1 + tf.cast(optimizer.iterations.value, tf.float64))  # noqa: E731
    result = tl.TrainLoop(net(), optimizer, residuals=growing).run(arrays(), steps=3)
    assert passes(result) == [1, 1, 1]
    np.testing.assert_allclose(result.history["loss"][1:], result.history["f_new"][:-1] * [4, 9 / 4], rtol=1e-10)


@pytest.mark.thorough
def test_drawn_points_are_other_points_in_every_step():
    result = tl.TrainLoop(net(), Descent(), residuals=NAMED).run(points(batch_size={"a": 5}), steps=3)
    assert passes(result) == [1, 1, 1]


@pytest.mark.usefixtures("no_graph_rewriting")
@pytest.mark.parametrize("optimizer", [Descent, tl.LBFGS])
@pytest.mark.thorough_after(1)
def test_neither_blocks_nor_interruptions_change_bits_or_counts(optimizer, tmp_path):
    def run(steps, folder=None, **options):
        weight = tf.Variable(2.0, dtype=tf.float64, trainable=False)
        hooks = [tl.Resample("a", every_steps=4, candidates=50)]
        hooks += [tl.SaveCheckpoint(folder, every_steps=100)] if folder else []
        options = {"residuals": NAMED, "loss_weights": {"b": weight}, "hooks": hooks, **options}
        loop = tl.TrainLoop(net(), optimizer(), **options)
        if folder:
            loop.restore(folder)
        return loop, loop.run(points(), until_step=steps)

    whole, expected = run(9)
    others = [run(9, steps_per_call=1), run(9, steps_per_call=2)]
    for steps in (2, 4, 6):
        run(steps, tmp_path)
    others.append(run(9, tmp_path))
    for loop, result in others:
        np.testing.assert_array_equal(weights(loop.model), weights(whole.model))
        assert result.evaluations == expected.evaluations
        for name in ("loss", "evaluations/f", "evaluations/gradient"):
            there = expected.history[name][-len(result.history[name]) :]
            np.testing.assert_array_equal(result.history[name], there)


@pytest.mark.thorough
def test_a_checkpoint_does_not_count_where_the_loss_is_another_one_now(tmp_path):
    def loop(value):
        weight = tf.Variable(value, dtype=tf.float64, trainable=False)
        hooks = [tl.SaveCheckpoint(tmp_path)]
        return tl.TrainLoop(net(), Descent(), residuals=NAMED, loss_weights={"b": weight}, hooks=hooks)

    loop(2.0).run(points(), steps=2)
    same, other = loop(2.0), loop(3.0)
    for one, first in ((same, 0), (other, 1)):
        one.hooks = ()
        one.restore(tmp_path)
        result = one.run(points(), until_step=4)
        assert np.diff(result.history["evaluations/gradient"], prepend=3).tolist() == [1 + first, 1]


def test_a_loop_that_is_restored_goes_on_from_there(tmp_path):
    loop = tl.TrainLoop(net(), Descent(), residuals=NAMED, hooks=[tl.SaveCheckpoint(tmp_path, every_steps=3, keep=9)])
    data = points()
    expected = loop.run(data, steps=6)
    (tmp_path / "step-00000006").rename(tmp_path / "aside")
    loop.restore(tmp_path)
    result = loop.run(data, until_step=6)
    assert result.evaluations == expected.evaluations
    np.testing.assert_array_equal(result.history["loss"], expected.history["loss"][3:])
