"""A step looked at and not taken: it is the next one, and nothing shows afterwards that it was looked at."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, stateful_net, weights

from trainloop import (
    LBFGS,
    SAM,
    ArrayData,
    Hook,
    Momentum,
    SaveCheckpoint,
    SimpleGD,
    Status,
    TestGD,
    TrainLoop,
    VariableVector,
)

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def data():
    return ArrayData(*blobs(), 24)


def dataset(known=True):
    """A new order in every epoch, drawn from a generator that all iterators share."""
    batches = tf.data.Dataset.from_tensor_slices(blobs()).shuffle(96, seed=1).batch(24)
    return batches if known else batches.filter(lambda x, y: True)


def loop_of(method=None, model=None, **options):
    return TrainLoop(model or stateful_net(), method or Momentum(0.05), crossentropy(), **options)


def everything(loop):
    """Every variable of model, method, metrics and counters."""
    return {name: v.numpy() for name, v in loop.resumable().variables().items()}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


METHODS = [
    (lambda: SAM(Momentum(0.05, global_clipnorm=0.5)), stateful_net, {"microbatch_size": 16, "metrics": ["accuracy"]}),
    (lambda: TestGD(rad=5.0, storage="factored"), dense_net, {}),
    (lambda: TestGD(rad=5.0, storage="dense:2"), stateful_net, {"eager": True}),
    (lambda: LBFGS(m=3), dense_net, {}),
]


@pytest.mark.parametrize(("method", "net", "options"), METHODS)
@pytest.mark.thorough_after(1)
def test_it_is_the_next_step_and_leaves_no_trace(method, net, options):
    loop, alone, batches = loop_of(method(), net(), **options), loop_of(method(), net(), **options), data()
    for steps in (3, 2):  # in the middle of the first epoch, and at the beginning of the second after one more
        seen = loop.inspect(batches if steps == 3 else None)
        before = everything(loop)
        loop.inspect(batches)
        same(everything(loop), before)
        history = loop.run(batches, steps=1).history
        assert seen.f == history["loss"][0]
        np.testing.assert_array_equal(VariableVector(loop.model.trainable_variables).read(), seen.x_new)
        assert {name: history[name][0] for name in seen.scalars} == seen.scalars
        for path, vector in seen.state.items():
            np.testing.assert_array_equal(loop.optimizer._read_state()[path], vector)
        loop.run(batches, steps=steps - 1)
    after = data()
    alone.run(after, steps=5)
    np.testing.assert_array_equal(weights(loop.model), weights(alone.model))
    assert loop._phase.train.traces <= 1


def test_g_is_what_update_gets():
    seen = loop_of(Momentum(0.1, global_clipnorm=0.5), dense_net()).inspect(data())
    order = data().order(0).numpy()[:24]
    model, (x, y) = dense_net(), blobs()
    with tf.GradientTape() as tape:
        f = crossentropy()(y[order], model(x[order]))
    g = np.concatenate([np.ravel(g) for g in tape.gradient(f, [v.value for v in model.trainable_variables])])
    g *= 0.5 / np.linalg.norm(g)
    np.testing.assert_allclose(seen.f, float(f), rtol=1e-12)
    np.testing.assert_allclose(seen.g, g, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(seen.step, -0.1 * g, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(seen.state["velocity"], -0.1 * g, rtol=1e-9, atol=1e-15)
    assert seen.angle == pytest.approx(0, abs=1e-5)
    kernel = seen.layout.span(seen.layout.names[0])
    norms = {"x": seen.x[kernel], "g": g[kernel], "step": 0.1 * g[kernel]}
    for name, vector in norms.items():
        assert seen.norms()[seen.layout.names[0]][name] == pytest.approx(np.sqrt(np.sum(vector**2)), rel=1e-9)


@pytest.mark.thorough
def test_a_dataset_stays_where_it_is(tmp_path):
    """Orders of later epochs and checkpoints included."""
    ends = []
    for looks in (True, False):
        folder = tmp_path / str(looks)
        batches = dataset(known=False)
        loop = loop_of(SimpleGD(0.1), dense_net(), hooks=[SaveCheckpoint(folder, every_steps=3)])
        losses = []
        for steps in (1, 2, 4, 2):
            if looks:
                seen = loop.inspect(batches), loop.inspect(batches)
            losses += list(loop.run(batches, steps=steps).history["loss"])
            if looks:
                assert {s.f for s in seen} == {losses[-steps]}
        assert loop.traces == 1
        again = loop_of(SimpleGD(0.1), dense_net(), hooks=[SaveCheckpoint(folder, every_steps=100)])
        again.restore(folder)
        losses += list(again.run(dataset(known=False), until_step=12).history["loss"])
        ends.append((losses, weights(loop.model), weights(again.model)))
    for looked, alone in zip(*ends, strict=True):
        np.testing.assert_array_equal(looked, alone)


@pytest.mark.parametrize("make_data", [data, dataset])
@pytest.mark.thorough_after(1)
def test_after_a_restore_it_is_the_step_that_the_run_goes_on_with(make_data, tmp_path):
    loop_of(SimpleGD(0.1), dense_net(), hooks=[SaveCheckpoint(tmp_path, every_steps=6)]).run(make_data(), steps=6)
    loop, batches = loop_of(SimpleGD(0.1), dense_net(), hooks=[SaveCheckpoint(tmp_path)]), make_data()
    loop.restore(tmp_path)
    x, y = blobs(seed=5)
    others = loop.inspect((x, y)).f  # of data that the checkpoint knows nothing of, from their beginning
    assert loop.inspect((x, y)).f == others
    seen = loop.inspect(batches).f, loop.inspect(batches).f
    assert seen == (loop.run(batches, steps=7).history["loss"][0],) * 2


def test_other_data_do_not_disturb_those_of_the_run():
    loop, alone, (x, y) = loop_of(model=dense_net()), loop_of(model=dense_net()), blobs(seed=5)
    first, second = dataset(), dataset()
    for _ in range(3):
        loop.run(first, steps=3)
        other = loop.inspect((x[:10], y[:10]))
        alone.run(second, steps=3)
    assert other.f != loop.inspect().f
    np.testing.assert_array_equal(weights(loop.model), weights(alone.model))


class Looking(Hook):
    """Inspects from within a run."""

    def on_start(self, loop):
        self.loop, self.seen = loop, []

    def on_step(self, progress):
        self.seen.append(self.loop.inspect().f)


@pytest.mark.parametrize("make_data", [data, dataset])
@pytest.mark.thorough_after(1)
def test_a_hook_may_look_while_the_run_goes_on(make_data):
    hook, alone = Looking(every_steps=2), loop_of(model=dense_net())
    loop = loop_of(model=dense_net(), hooks=[hook])
    result = loop.run(make_data(), epochs=2)
    alone.run(make_data(), epochs=2)
    assert hook.seen[:-1] == list(result.history["loss"][2::2])
    np.testing.assert_array_equal(weights(loop.model), weights(alone.model))


def test_the_other_engine_proposes_the_same_to_rounding():
    seen = loop_of(model=dense_net(), jit_compile=True).inspect(data())
    np.testing.assert_allclose(seen.x_new, loop_of(model=dense_net()).inspect(data()).x_new, rtol=1e-10)


def test_a_step_that_fails_is_shown():
    x, y = blobs()
    x[:, 0] = 1e200  # the square of it is not finite
    loop = TrainLoop(dense_net(), SimpleGD(0.1), lambda y, z: tf.square(z * 1e200), metrics=())
    before = everything(loop)
    seen = loop.inspect((x, y))
    assert seen.status is Status.NONFINITE_LOSS
    assert np.isnan(seen.angle)
    same(everything(loop), before)
    told = str(seen)
    assert "nonfinite_loss: the loss is NaN or infinite" in told
    assert "the step has no direction" in told
    assert int(told.splitlines()[-1].split()[-1]) == np.count_nonzero(~np.isfinite(seen.step)) > 0
    seen.histogram()


def test_it_is_a_table_for_people_and_for_notebooks():
    seen = loop_of(TestGD(rad=5.0), dense_net()).inspect(data())
    title, angle, state, head, *rows = str(seen).splitlines()
    assert title.startswith(f"f = {seen.f:.6g}, n = 53, running: ")
    assert angle == "angle between -g and the step: 0.00 degrees"
    assert state.startswith("new state: radius ")
    assert head.split()[:2] == ["variable", "shape"]
    assert [row.split()[0] for row in rows] == [*seen.layout.names, "all"]
    assert len({len(row) for row in (head, *rows)}) == 1  # aligned
    assert seen._repr_html_().count("<tr>") == 1 + len(rows)
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.f = 0.0


def test_a_picture_has_a_panel_for_x_g_and_step(tmp_path):
    seen = loop_of(model=dense_net()).inspect(data())
    figure = seen.histogram(tmp_path / "step.png")
    assert [axes.get_title() for axes in figure.axes] == ["weights x", "gradient g", "step x_new - x"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [*seen.layout.names, "all"]
    assert all(axes.get_xscale() == "log" and axes.get_xlabel() for axes in figure.axes)
    assert "100 % zero" in [text.get_text() for text in figure.axes[0].texts]  # biases begin with zero
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")


def test_there_must_be_a_next_batch(tmp_path):
    loop = loop_of(model=dense_net(), hooks=[SaveCheckpoint(tmp_path)])
    with pytest.raises(ValueError, match="no run has begun"):
        loop.inspect()
    batches = dataset(known=False)
    loop.run(batches, steps=4)
    with pytest.raises(ValueError, match="no further batch in this epoch"):
        loop.inspect()
    loop.run(batches, steps=1)
    loop.restore(tmp_path)
    with pytest.raises(ValueError, match="made or restored"):
        loop.inspect()
