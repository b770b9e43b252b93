"""New points where the residual is large: how they are chosen, and what a run makes of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import weights

import trainloop as tl

WALL = np.random.default_rng(0).uniform(size=(6, 2))


def net(width=4):
    seed_generators()
    layers = [keras.layers.Dense(k, a, dtype="float64") for k, a in ((width, "tanh"), (1, None))]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


RESIDUALS = {"pde": lambda m, p: m(p) - tf.reduce_sum(p, 1, keepdims=True), "wall": lambda m, p: m(p) - 1}


def points(count=20, **options):
    return tl.Points({"pde": tl.Box([0, 0], [1, 2], count, "float64"), "wall": WALL}, **options)


def make_loop(*hooks, optimizer=None, residuals=None, **options):
    return tl.TrainLoop(net(), optimizer or tl.LBFGS(), residuals=residuals or RESIDUALS, hooks=hooks, **options)


class Seen(tl.Hook):
    """The points of a term after every step."""

    def __init__(self, name="pde"):
        super().__init__(1)
        self.name, self.points = name, []

    def on_start(self, loop):
        self.loop = loop

    def on_step(self, progress):
        values = self.loop.resumable().run.feed.values[self.name]
        self.points.append(tf.nest.map_structure(lambda tensor: tensor.numpy(), values))


@pytest.mark.parametrize(
    ("k", "c", "ratio"),  # of densities where |r| is 5 and 1: 5^k / mean(|r|^k) + c against 1 / mean + c
    [(1.0, 0.0, 5.0), (2.0, 0.0, 25.0), (0.0, 0.0, 1.0), (1.0, 1.0, (5 / 3 + 1) / (1 / 3 + 1))],
)
@pytest.mark.parametrize("vector", [False, True])
def test_the_density_is_that_of_the_source(k, c, ratio, vector):
    def residual(model, p):
        r = 1 + 4 * tf.cast(p[:, 0] < 0.5, p.dtype) + 0 * model(p)[:, 0]
        return tf.stack([0.6 * r, -0.8 * r], 1) if vector else -r

    seen = Seen()
    hook = tl.Resample("pde", every_steps=1, candidates=30_000, k=k, c=c)
    loop = make_loop(hook, seen, optimizer=tl.SimpleGD(0.1), residuals={"pde": residual, "wall": RESIDUALS["wall"]})
    loop.run(points(1000), steps=2)
    first, second = seen.points
    for chosen in seen.points:
        left = np.sum(chosen[:, 0] < 0.5)
        share = ratio / (1 + ratio)
        assert abs(left - 1000 * share) < 4 * np.sqrt(1000 * share * (1 - share)) + 12  # 12: few candidates are left
        assert len(np.unique(chosen, axis=0)) == 1000  # without replacement
        assert chosen.min() >= 0
        assert (chosen <= [1, 2]).all()
    assert not np.array_equal(first, second)


@pytest.mark.thorough
def test_points_without_a_residual_are_not_chosen_where_c_is_zero():
    residuals = {**RESIDUALS, "pde": lambda m, p: tf.where(p[:, 1] > 1, m(p)[:, 0], 0 * m(p)[:, 0])}
    seen = Seen()
    hook = tl.Resample("pde", every_steps=1, candidates=200, c=0.0)
    make_loop(hook, seen, residuals=residuals).run(points(), steps=1)
    assert (seen.points[0][:, 1] > 1).all()


@pytest.mark.thorough
def test_where_all_residuals_are_zero_any_points_are_chosen():
    residuals = {**RESIDUALS, "pde": lambda m, p: 0 * m(p)}
    seen = Seen()
    hook = tl.Resample("pde", every_steps=1, candidates=20, c=0.0)
    make_loop(hook, seen, residuals=residuals).run(points(), steps=1)
    assert np.isfinite(seen.points[0]).all()


@pytest.mark.thorough
def test_the_next_step_takes_f_on_the_new_points_and_keeps_curvature():
    seen = Seen()
    loop = make_loop(tl.Resample("pde", every_steps=3, candidates=100), seen)
    losses = []
    seen.on_block = lambda progress: losses.append((weights(loop.model), progress.logs["loss"][-1]))
    result = loop.run(points(), steps=7)
    for step in range(6):
        model = net()
        after, f = losses[step][0], losses[step + 1][1]
        tl.ModelObjective(model, residuals=RESIDUALS, batch={"pde": WALL, "wall": WALL}).vector.assign(after)
        by_hand = np.mean((model(seen.points[step]).numpy() - seen.points[step].sum(1, keepdims=True)) ** 2)
        by_hand += np.mean((model(WALL).numpy() - 1) ** 2)
        assert f == pytest.approx(by_hand, rel=1e-10)
    assert not np.array_equal(seen.points[1], seen.points[2])
    assert not np.array_equal(seen.points[4], seen.points[5])
    assert result.history["pairs"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert loop.traces == 1


@pytest.mark.usefixtures("no_graph_rewriting")
@pytest.mark.parametrize("sizes", [None, {"pde": 8}], ids=["whole", "drawn"])
@pytest.mark.thorough_after(1)
def test_a_resumed_run_has_the_same_points_and_bits(sizes, tmp_path):
    def run(folder, steps):
        seen = Seen()
        hooks = [tl.Resample("pde", every_steps=3, candidates=60), tl.SaveCheckpoint(folder, every_steps=5), seen]
        loop = make_loop(*hooks)
        loop.restore(folder)
        loop.run(points(batch_size=sizes), until_step=steps)
        return loop, seen.points

    whole, expected = run(tmp_path / "whole", 8)
    run(tmp_path / "cut", 5)
    resumed, found = run(tmp_path / "cut", 8)
    np.testing.assert_array_equal(found, expected[5:])
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))


@pytest.mark.thorough
def test_another_loop_on_the_same_points_begins_with_those_that_were_given():
    data = points()
    given = data.values["pde"].numpy()
    make_loop(tl.Resample("pde", every_steps=1, candidates=60)).run(data, steps=2)
    seen = Seen()
    make_loop(seen).run(data, steps=1)
    np.testing.assert_array_equal(seen.points[0], given)


class Pairs:
    """Two points on opposite sides."""

    count = 10

    def __call__(self, seed, count):
        y = tf.random.stateless_uniform([count, 1], seed, dtype=tf.float64)
        return tf.concat([tf.zeros_like(y), y], 1), tf.concat([tf.ones_like(y), y], 1)


@pytest.mark.thorough
def test_pairs_stay_together_and_many_candidates_go_in_chunks(monkeypatch):
    monkeypatch.setattr("trainloop.hooks.resample._CHUNK", 16)
    residuals = {"periodic": lambda m, p: m(p[0]) - m(p[1])}
    seen = Seen("periodic")
    loop = make_loop(tl.Resample("periodic", every_steps=2, candidates=50, c=0.0, k=50.0), seen, residuals=residuals)
    loop.run(tl.Points({"periodic": Pairs()}), steps=3)
    before, after, _ = seen.points
    np.testing.assert_array_equal(after[0][:, 1], after[1][:, 1])
    np.testing.assert_array_equal([after[0][:, 0], after[1][:, 0]], [np.zeros(10), np.ones(10)])
    assert not np.array_equal(before[0], after[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tl.Resample("pde", every_steps=None, candidates=9), "every_steps must be an integer"),
        (lambda: tl.Resample("pde", every_steps=5, candidates=0), "candidates must be an integer of at least 1"),
        (lambda: tl.Resample("pde", every_steps=5, candidates=9, k=-1), "k must be"),
        (lambda: tl.Resample("pde", every_steps=5, candidates=9, c=-1), "c must be"),
        (lambda: make_loop(tl.Resample("pda", 5, 90)).run(points(), steps=1), "term of the Points .*'pde'"),
        (lambda: make_loop(tl.Resample("wall", 5, 90)).run(points(), steps=1), "needs a sampler such as Box"),
        (lambda: make_loop(tl.Resample("pde", 5, 9)).run(points(), steps=1), "at least 20 candidates.*received 9"),
        (
            lambda: make_loop(tl.Resample("pde", 5, 90), residuals={"wall": RESIDUALS["wall"]}).run(points(), steps=1),
            "points for 'pde', which no residual is called",
        ),
        (
            lambda: tl.TrainLoop(
                net(),
                tl.SimpleGD(0.1),
                lambda m, p: tf.reduce_mean(m(p["pde"]) ** 2),
                hooks=[tl.Resample("pde", 5, 90)],
            ).run(points(), steps=1),
            "which no term of the residuals is called",
        ),
        (
            lambda: make_loop(tl.Resample("pde", 5, 90), residuals=lambda m, b: m(b[0])).run((WALL, WALL), steps=1),
            "needs a run on Points, received ArrayData",
        ),
        (
            lambda: make_loop(
                tl.Resample("pde", 1, 90),
                optimizer=tl.SimpleGD(0.1),
                residuals={
                    **RESIDUALS,
                    "pde": lambda m, p: (
                        m(p) + (tf.math.log(-1.0 * tf.ones([90, 1], p.dtype)) if p.shape[0] == 90 else 0)
                    ),
                },
            ).run(points(), steps=1),
            "the residual 'pde' of candidates",
        ),
    ],
)
def test_what_cannot_be_resampled(make, words):
    with pytest.raises(ValueError, match=words):
        make()
