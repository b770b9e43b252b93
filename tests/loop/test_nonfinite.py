"""Steps that meet NaN or infinity: stop with a diagnosis, skip, or go back."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import blobs, crossentropy, dense_net, weights

from trainloop import (
    LBFGS,
    SAM,
    ArrayData,
    GlobalVectorOptimizer,
    LevenbergMarquardt,
    MetricsFile,
    Momentum,
    SaveCheckpoint,
    SimpleGD,
    Status,
    TestGD,
    TrainingError,
    TrainLoop,
)
from trainloop.loop.array_feed import ArrayFeed
from trainloop.loop.bookkeeping import Bookkeeping
from trainloop.loop.goal import Goal
from trainloop.loop.nonfinite import MOST_ROLLBACKS, MOST_SKIPS

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def data_with_a_bad_batch(**options):
    """In batches of 20, unshuffled, the third is one whose activations overflow."""
    x, y = blobs()
    x[50, 0] = 1e308
    return ArrayData(x, y, 20, shuffle=False, **options)


def without_the_bad_batch():
    x, y = blobs()
    kept = np.r_[0:40, 60:96]
    return ArrayData(x[kept], y[kept], 20, shuffle=False)


def big_net():
    """dense_net with weights that make 1e308 overflow, and averages and seeds that must not move for a bad batch."""
    seed_generators()
    layers = [
        keras.layers.Input((6,)),
        keras.layers.Dense(8, kernel_initializer=keras.initializers.Constant(10.0), name="wide"),
    ]
    layers += [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3, seed=0), keras.layers.Dense(3, name="last")]
    return keras.Sequential(layers)


def wide_net():
    """The same without layers that take XLA long to compile."""
    seed_generators()
    wide = keras.layers.Dense(8, kernel_initializer=keras.initializers.Constant(10.0))
    return keras.Sequential([keras.layers.Input((6,)), wide, keras.layers.Dense(3)])


def make_loop(net=big_net, optimizer=None, loss=None, **options):
    return TrainLoop(net(), optimizer or Momentum(0.01), loss or crossentropy(), metrics=["accuracy"], **options)


class Forgets(GlobalVectorOptimizer):
    """Puts NaN into its state in step 3, and uses it from step 4 on."""

    def __init__(self, learning_rate=0.1, name="forgets", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)

    def init_state(self, x):
        return {"velocity": tf.zeros_like(x), "steps": tf.zeros([], x.dtype)}

    def update(self, x, g, state):
        broken = tf.where(state["steps"] < 2, g, g * np.nan)
        return x - self.learning_rate * (g + state["velocity"]), {"velocity": broken, "steps": state["steps"] + 1}


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.thorough_after(1)
def test_nan_in_the_state_ends_the_run_and_gets_into_no_checkpoint(policy, tmp_path):
    saver = SaveCheckpoint(tmp_path, every_steps=1)
    loop = TrainLoop(dense_net(), Forgets(), crossentropy(), hooks=[saver], on_nonfinite=policy)
    with pytest.raises(TrainingError, match=r"velocity \(53 of 53 numbers\)") as caught:
        loop.run(ArrayData(*blobs(), 32), steps=20)
    assert (caught.value.step, caught.value.status) == (3, Status.NONFINITE_STATE)
    assert saver.folder.steps() == [1, 2]


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.thorough_after(1)
def test_a_step_that_fails_for_nan_in_the_state_says_so(policy):
    loop = TrainLoop(dense_net(), Forgets(), crossentropy(), on_nonfinite=policy, steps_per_call=12)
    with pytest.raises(TrainingError, match=r"velocity \(53 of 53 numbers\)") as caught:
        loop.run(ArrayData(*blobs(), 8), steps=20)
    assert (caught.value.step, caught.value.status) == (4, Status.NONFINITE_STEP)
    assert all(np.all(np.isfinite(v.numpy())) for v in loop.model.variables)


@pytest.mark.parametrize("optimizer", [Momentum, LBFGS])
@pytest.mark.thorough_after(1)
def test_a_skipped_batch_leaves_no_trace(optimizer, caplog):
    skipping, never_saw = make_loop(optimizer=optimizer(), on_nonfinite="skip"), make_loop(optimizer=optimizer())
    result = skipping.run(data_with_a_bad_batch(), epochs=2)
    expected = never_saw.run(without_the_bad_batch(), epochs=2)
    np.testing.assert_array_equal(weights(skipping.model), weights(never_saw.model))
    np.testing.assert_array_equal(result.history["loss"], expected.history["loss"])
    np.testing.assert_array_equal(result.history["step"], np.arange(1, 9))
    np.testing.assert_array_equal(result.epochs["accuracy"], expected.epochs["accuracy"])
    assert (result.status, skipping.optimizer.skipped_steps) == (Status.FINISHED, 2)
    assert "step 3 was left out, because the loss is NaN" in caplog.text


def test_skipping_has_an_end():
    x, y = blobs()
    loop = make_loop(on_nonfinite="skip")
    with pytest.raises(TrainingError, match="No step had a finite loss"):
        loop.run(ArrayData(np.full_like(x, 1e308), y, 20), steps=1000)
    assert loop.optimizer.skipped_steps == MOST_SKIPS + 1


@pytest.mark.thorough
def test_a_failed_step_leaves_averages_seeds_and_counters_alone():
    loop, reference = make_loop(), make_loop()
    with pytest.raises(TrainingError) as caught:
        loop.run(data_with_a_bad_batch(), epochs=1)
    reference.run(data_with_a_bad_batch(), steps=2)
    np.testing.assert_array_equal(weights(loop.model), weights(reference.model))
    for ours, theirs in zip(loop.model.variables, reference.model.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert caught.value.where == "the first layer whose output is not finite is sequential_2/wide (Dense)".replace(
        "sequential_2", loop.model.name
    )
    assert str(caught.value).endswith("/wide (Dense).")


def overflowing(y, p):
    return tf.exp(1e3 * tf.abs(p[:, 0]))


def rooted(y, p):
    return tf.sqrt(p[:, 0] - p[:, 0])  # 0, with a gradient of 0 / 0


class Rooted(keras.layers.Layer):
    """The square root of zero, of which the gradient is infinite, on the way back to the layer before."""

    def call(self, x):
        return tf.sqrt(tf.nn.relu(x) * 0) + x


def rooted_net():
    inner = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, name="before"), Rooted()], name="inner")
    return keras.Sequential([keras.layers.Input((6,)), inner, keras.layers.Dense(3, name="behind")], name="outer")


def inner_net():
    inner = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, name="sum")], name="inner")
    inner.layers[0].set_weights([np.full((6, 4), 1e308), np.zeros(4)])
    return keras.Sequential([keras.layers.Input((6,)), inner, keras.layers.Dense(3)], name="outer")


def activation_net():
    """A layer without weights is never built and has no path."""
    logarithm = keras.layers.Activation(lambda x: tf.math.log(-tf.abs(x)), name="logarithm")
    return keras.Sequential([keras.layers.Input((6,)), logarithm, keras.layers.Dense(3)])


def penalised_net():
    return keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3, kernel_regularizer="l2")])


@pytest.mark.parametrize(
    ("net", "loss", "options", "words"),
    [
        (inner_net, None, {}, r"the first layer whose output is not finite is inner/sum \(Dense\)"),
        (inner_net, None, {"microbatch_size": 7}, r"the first layer whose output is not finite is inner/sum \(Dense\)"),
        (activation_net, None, {}, r"the first layer whose output is not finite is logarithm \(Activation\)"),
        (dense_net, overflowing, {}, "the outputs of all layers are finite, so it arises in the loss function"),
        (penalised_net, overflowing, {}, "the outputs of all layers are finite, so it arises in the loss function"),
        (dense_net, rooted, {}, "the first gradient that is not finite is that of .*dense_?[0-9]*/bias"),
        (rooted_net, None, {}, "the first gradient that is not finite is that of .*before/bias"),
    ],
)
@pytest.mark.thorough_after(1)
def test_the_diagnosis_names_the_place(net, loss, options, words):
    x, y = blobs()
    loop = make_loop(net, loss=loss, **options)
    before = weights(loop.model)
    with pytest.raises(TrainingError) as caught:
        loop.run(ArrayData(1e3 * x, y, 20), epochs=1)
    assert np.all(np.isfinite(weights(loop.model)))
    np.testing.assert_array_equal(weights(loop.model), before)
    assert re.search(words, caught.value.where)
    assert loop.evaluate((np.zeros((2, 6)), np.zeros(2, "int32")))  # the layers are as they were


def test_a_dataset_is_not_read_again_for_a_diagnosis():
    x, y = blobs()
    x[50, 0] = np.nan
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    with pytest.raises(TrainingError) as caught:
        make_loop().run(data, epochs=1)
    assert (caught.value.step, caught.value.where) == (3, None)
    assert str(caught.value).endswith(f"Last finite loss {caught.value.last_loss:.6g}.")


# --- Rollback ---------------------------------------------------------------------------------------------


def steep(y, p):
    """Finite up to 1e12: steps that are too long leave it."""
    f = tf.reduce_sum(p**4, -1)
    return tf.where(f < 1e12, f, tf.constant(np.nan, f.dtype))


def rolling(folder, optimizer, **options):
    hooks = [MetricsFile(folder / "metrics.jsonl"), SaveCheckpoint(folder / "checkpoints", every_steps=10)]
    return TrainLoop(dense_net(), optimizer, steep, hooks=hooks, on_nonfinite="rollback", **options)


def test_rollback_takes_shorter_steps_until_it_works(tmp_path, caplog):
    x, y = blobs()
    loop = rolling(tmp_path, SimpleGD(2.0))
    result = loop.run(ArrayData(x, y, 20), epochs=3)
    rate = float(loop.optimizer.learning_rate)
    halvings = round(np.log2(2.0 / rate))
    assert 1 <= halvings <= MOST_ROLLBACKS
    assert rate == 2.0 / 2**halvings
    assert caplog.text.count("back to step") == halvings
    np.testing.assert_array_equal(result.history["step"], np.arange(1, 16))
    assert np.all(np.isfinite(result.history["loss"]))
    logged = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"step"' in line[:20]]
    assert len(logged) == 15


def test_what_was_done_in_vain_took_its_time():
    """A budget of seconds holds also where the run goes back; one that is continued has what it took before, too."""
    run = Bookkeeping(ArrayFeed(ArrayData(*blobs(), 20)), step=0)
    run.aim(Goal(epochs=3))
    saved = {**run.state(), "seconds": 1000.0}
    for used, least in ((0, 1000), (5000, 6000)):
        run.began -= used
        run.load_state(saved)
        assert least <= run.result(None).seconds < least + 1000


def test_rollback_has_an_end(tmp_path):
    loop = rolling(tmp_path, SimpleGD(1e9))
    with pytest.raises(TrainingError, match="nonfinite"):
        loop.run(ArrayData(*blobs(), 20), epochs=3)
    assert float(loop.optimizer.learning_rate) == 1e9 / 2**MOST_ROLLBACKS


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (lambda: SimpleGD(0.5), ["learning_rate"]),
        (lambda: TestGD(rad=5.0), ["state.radius"]),
        (lambda: LevenbergMarquardt(), ["state.damping"]),
        (lambda: SAM(Momentum(0.5)), ["inner.learning_rate"]),
    ],
)
def test_what_makes_steps_shorter(optimizer, names):
    method = optimizer()
    method.build(dense_net().trainable_variables)
    variables = method.resumable_variables()
    before = {name: float(variables[name]) for name in names}
    assert method.shrink_steps(0.25) == names
    for name in names:
        assert float(variables[name]) == before[name] * (4 if "damping" in name else 0.25)


def test_what_cannot_go_back_is_refused(tmp_path):
    with pytest.raises(ValueError, match="LBFGS has no learning rate, radius or damping"):
        make_loop(optimizer=LBFGS(), on_nonfinite="rollback")
    with pytest.raises(ValueError, match="add the hook SaveCheckpoint"):
        make_loop(on_nonfinite="rollback").run(data_with_a_bad_batch(), epochs=1)
    with pytest.raises(ValueError, match="must be one of stop, skip, rollback; received 'skipp'"):
        make_loop(on_nonfinite="skipp")


def test_no_policy_hides_other_failures():
    from trainloop.loop.engine import Block
    from trainloop.loop.nonfinite import OnNonfinite

    block = Block(Status.HISTORY_FULL, np.zeros((2, 3)), {}, 0.1)
    assert OnNonfinite("skip", SimpleGD()).skip(block, 5) == (block, 0)
    assert OnNonfinite("stop", SimpleGD()).roll_back(None, Status.HISTORY_FULL) is None


@pytest.mark.thorough
def test_xla_skips_too():
    skipping, never_saw = (
        make_loop(wide_net, on_nonfinite="skip", jit_compile=True, loss=crossentropy()) for _ in range(2)
    )
    result = skipping.run(data_with_a_bad_batch(), epochs=1)
    expected = never_saw.run(without_the_bad_batch(), epochs=1)
    assert (result.step, skipping.optimizer.skipped_steps) == (4, 1)
    np.testing.assert_array_equal(weights(skipping.model), weights(never_saw.model))
    np.testing.assert_array_equal(result.epochs["accuracy"], expected.epochs["accuracy"])


@pytest.mark.thorough
def test_many_loops_are_no_reason_for_a_warning(caplog):
    """TensorFlow warns of functions that are traced again and again; every loop has its own, which is traced once."""
    for rate in np.arange(1, 13) / 100:
        TrainLoop(dense_net(), SimpleGD(rate), crossentropy()).run(ArrayData(*blobs(), 96), steps=1)
    assert "retracing" not in caplog.text
