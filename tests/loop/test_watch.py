"""Hooks that look into the compiled step."""

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights

from trainloop import Adam, ArrayData, Hook, MetricsFile, Momentum, SimpleGD, TestGD, TrainLoop
from trainloop.hooks.metrics_file import read_run_log

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


class Watching(Hook):
    """Sees what a function of the step says."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def watch(self, step):
        return self.look(step)


def loop_with(*looks, optimizer=None, model=None, **options):
    hooks = [Watching(look) for look in looks]
    return TrainLoop(model or dense_net(), optimizer or SimpleGD(0.1), crossentropy(), hooks=hooks, **options)


def data():
    return ArrayData(*blobs(), 24, shuffle=False)


def whole_look(step):
    return {
        "x": tf.reduce_sum(step.x),
        "f": 2 * step.f,
        "largest": tf.reduce_max(tf.abs(step.g)),
        "moved": tf.norm(step.x_new - step.x),
        "velocity": tf.norm(step.state["velocity"]),
        "kernel": tf.norm(step.g[step.layout.span(step.layout.names[0])]),
        "fine": step.status >= 0,
        "seven": 7,
    }


def whole_look_of_numpy(model, steps, clip):
    """The same by hand: heavy ball with momentum 0.9 and rate 0.1, on batches of 24 in order."""
    (x_all, y_all), rows, v = blobs(), [], 0.0
    variables = model.trainable_variables
    for i in range(steps):
        batch = slice(24 * i, 24 * i + 24)
        with tf.GradientTape() as tape:
            f = crossentropy()(y_all[batch], model(x_all[batch]))
        parts = [np.ravel(g) for g in tape.gradient(f, [w.value for w in variables])]
        g = np.concatenate(parts)
        shorter = min(1, clip / np.linalg.norm(g))
        g, x = g * shorter, np.concatenate([np.ravel(w) for w in variables])
        v = 0.9 * v - 0.1 * g
        kernel = np.linalg.norm(parts[0]) * shorter
        rows.append([x.sum(), 2 * float(f), abs(g).max(), np.linalg.norm(v), np.linalg.norm(v), kernel, 1, 7])
        for w, part in zip(variables, np.split(x + v, np.cumsum([p.size for p in parts])[:-1]), strict=True):
            w.assign(part.reshape(w.shape))
    return np.array(rows)


@pytest.mark.parametrize("engine", [{}, {"jit_compile": True}, {"eager": True}])
def test_a_hook_sees_the_step_before_it_is_taken(engine, tmp_path):
    loop = loop_with(whole_look, optimizer=Momentum(0.1, global_clipnorm=0.5), **engine)
    loop.hooks = (*loop.hooks, MetricsFile(tmp_path / "metrics.jsonl"))
    history = loop.run(data(), steps=4).history
    expected = whole_look_of_numpy(dense_net(), 4, 0.5)
    names = ("x", "f", "largest", "moved", "velocity", "kernel", "fine", "seven")
    np.testing.assert_allclose(np.transpose([history[name] for name in names]), expected, rtol=1e-9)
    assert history["fine"].dtype == bool
    assert history["grad_norm"][0] > 0.5  # the log has the norm before clipping
    np.testing.assert_array_equal(read_run_log(tmp_path / "metrics.jsonl").history["largest"], history["largest"])


def look_at_everything(step):
    told = {f"norm of {name}": tf.norm(vector) for name, vector in step.vectors().items()}
    return told | ({"of B": tf.norm(step.state["B"] @ step.g)} if "B" in step.state else {})


@pytest.mark.parametrize(
    ("method", "engine"),
    [
        (lambda: Adam(0.05), {"jit_compile": True}),
        (lambda: TestGD(rad=5.0, storage="factored"), {}),
    ],
)
@pytest.mark.thorough_after(1)
def test_looking_does_not_change_a_bit(method, engine, float32):
    watched, alone = dense_net(), dense_net()
    loop_with(look_at_everything, optimizer=method(), model=watched, **engine).run(data(), epochs=2)
    loop_with(optimizer=method(), model=alone, **engine).run(data(), epochs=2)
    np.testing.assert_array_equal(weights(watched), weights(alone))


def test_nobody_looks_at_no_cost():
    loop = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[Hook()])
    assert not loop._phase.steps._watches
    assert loop_with(lambda step: {})._phase.steps._watches.columns == {}


def matrix_image(step):
    return {"image": tf.norm(step.state["B"] @ tf.ones_like(step.x))}


def test_a_changed_matrix_can_be_multiplied_with():
    loop = loop_with(matrix_image, optimizer=TestGD(rad=5.0))
    history = loop.run(data(), steps=2).history
    B = loop.optimizer.state["B"].to_dense().numpy()
    assert history["image"][1] == pytest.approx(np.linalg.norm(B.sum(axis=1)), rel=1e-12)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda step: [1.0], "Watching.watch must return a dict of scalars by name, received list"),
        (lambda step: {3: step.f}, "keys are non-empty strings, received 3"),
        (lambda step: {"big": step.x}, r"'big' must be a tensor of numbers of shape \[\], received shape \(53,\)"),
        (lambda step: {"word": "high"}, "'word' must be a tensor of numbers .* dtype string"),
        (lambda step: {"none": None}, "'none' must be a tensor of numbers .* received None"),
        (lambda step: {"loss": step.f}, "'loss' is taken by the log of every step; rename it"),
        (lambda step: {"radius": step.f}, "'radius' is taken by the log"),
        (lambda step: {"kind": step.f}, "'kind' is taken by the log"),
    ],
)
def test_what_is_wrong_with_a_look_is_said_when_the_loop_is_made(look, message):
    with pytest.raises(ValueError, match=message):
        loop_with(look, optimizer=TestGD())


def test_two_hooks_may_not_use_one_name():
    with pytest.raises(ValueError, match=r"'a' is taken by Watching\.watch"):
        loop_with(lambda step: {"a": step.f}, lambda step: {"a": step.f})


def test_names_are_the_same_for_every_step():
    names = iter(["first", "second"])
    loop = loop_with(lambda step: {next(names): step.f})
    with pytest.raises(ValueError, match="the same names for every step; it did not for first, second"):
        loop.run(data(), steps=1)
