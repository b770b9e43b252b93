"""The loop: position, blocks, hooks, logs, ends."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, stateful_net, weights

from trainloop import ArrayData, Hook, Momentum, SimpleGD, Status, TestGD, TrainingError, TrainLoop


def loop_over(model=None, optimizer=None, **options):
    options = {"loss": crossentropy(), **options}
    return TrainLoop(model or dense_net(), optimizer or Momentum(0.1), **options)


def data(batch_size=20, **options):
    return ArrayData(*blobs(), batch_size, **options)  # 96 samples: 4 batches of 20 and one of 16


def dataset(batch_size=20, known=True):
    batches = tf.data.Dataset.from_tensor_slices(blobs()).batch(batch_size)
    return batches if known else batches.filter(lambda x, y: True)


# --- One meaning, however the steps are cut -------------------------------------------------------------


@functools.cache
def after_seven_steps(net):
    """Weights after one run in blocks of a length that it finds itself."""
    model = net()
    loop_over(model).run(data(), steps=7)
    return weights(model)


@pytest.mark.parametrize("net", [dense_net, stateful_net])
@pytest.mark.parametrize("calls", [[7], [1] * 7, [3, 4], [2, 2, 2, 1]])
@pytest.mark.parametrize("steps_per_call", [None, 1, 3])
@pytest.mark.thorough_after(1)
def test_cutting_a_run_changes_no_bit(net, calls, steps_per_call):
    cut = net()
    loop, same_data = loop_over(cut, steps_per_call=steps_per_call), data()
    for steps in calls:
        loop.run(same_data, steps=steps)
    np.testing.assert_array_equal(weights(cut), after_seven_steps(net))


def test_a_run_that_is_refused_leaves_the_position_in_the_data():
    model, batches = dense_net(), data()
    loop = loop_over(model)
    loop.run(batches, steps=3)
    for arguments in ({}, {"steps": 1, "validation_data": 3}):
        with pytest.raises(ValueError, match="received"):
            loop.run(data(), **arguments)
    loop.run(batches, steps=4)
    np.testing.assert_array_equal(weights(model), after_seven_steps(dense_net))


def test_any_number_of_steps_per_call_is_possible():
    result = loop_over(steps_per_call=2**40).run(dataset(known=False), epochs=2)
    assert (result.step, len(result.epochs["loss"])) == (10, 2)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.thorough_after(1)
def test_arrays_and_datasets_are_the_same_batches(known):
    first, second = stateful_net(), stateful_net()
    ours = loop_over(first).run(data(shuffle=False), epochs=3)
    theirs = loop_over(second).run(dataset(known=known), epochs=3)
    np.testing.assert_array_equal(weights(first), weights(second))
    for name in ours.history:
        np.testing.assert_array_equal(ours.history[name], theirs.history[name])


@pytest.mark.thorough
def test_xla_gives_the_same_to_rounding():
    runs = []
    for jit_compile in (False, True):
        model = dense_net()
        loop = loop_over(model, jit_compile=jit_compile, metrics=["accuracy"])
        result = loop.run(data(), epochs=3, validation_data=data())
        runs.append((weights(model), result))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-10)
    np.testing.assert_allclose(runs[0][1].history["loss"], runs[1][1].history["loss"], rtol=1e-10)
    np.testing.assert_allclose(runs[0][1].epochs["accuracy"], runs[1][1].epochs["accuracy"])


@pytest.mark.parametrize("batch_size", [20, 24, 96, None])
def test_one_trace_serves_every_block(batch_size):
    loop = loop_over()
    batches = data(batch_size)
    loop.run(batches, epochs=2)
    loop.run(batches, steps=3)
    loop.run(data(batch_size, seed=1), epochs=1)
    assert loop.traces == 1


def test_a_dataset_costs_one_trace():
    loop = loop_over()
    loop.run(dataset(), epochs=3)
    assert loop.traces == 1


# --- What is logged -------------------------------------------------------------------------------------


def test_logs_belong_to_the_weights_before_each_step():
    x, y = blobs()
    model = stateful_net()
    reference = stateful_net()
    result = loop_over(model, SimpleGD(0.1)).run(ArrayData(x, y, 24, shuffle=False), epochs=2)
    for step in range(8):
        rows = slice(24 * (step % 4), 24 * (step % 4) + 24)
        with tf.GradientTape() as tape:
            f = crossentropy()(y[rows], reference(x[rows], training=True)) + sum(reference.losses)
        gradients = tape.gradient(f, [v.value for v in reference.trainable_variables])
        assert result.history["loss"][step] == pytest.approx(float(f), rel=1e-12)
        norm = np.sqrt(sum(np.sum(g.numpy() ** 2) for g in gradients))
        assert result.history["grad_norm"][step] == pytest.approx(norm, rel=1e-12)
        for v, g in zip(reference.trainable_variables, gradients, strict=True):
            v.assign(v - 0.1 * g)
    np.testing.assert_allclose(weights(model), weights(reference), rtol=1e-12)


def test_every_step_and_every_scalar_of_the_state_is_there():
    result = loop_over(optimizer=TestGD(rad=5.0)).run(data(), epochs=2)
    assert set(result.history) == {"step", "epoch", "samples", "loss", "grad_norm", "radius", "status"}
    np.testing.assert_array_equal(result.history["step"], np.arange(1, 11))
    np.testing.assert_array_equal(result.history["epoch"], [1] * 5 + [2] * 5)
    np.testing.assert_array_equal(result.history["samples"], [20, 20, 20, 20, 16] * 2)
    assert np.all(np.diff(result.history["radius"]) < 0)
    assert result.history["status"].dtype == np.int32
    assert (result.status, result.step, result.evaluations) == (Status.FINISHED, 10, {"f": 10, "gradient": 10})


def test_epochs_are_summed_up_as_keras_does():
    x, y = blobs()
    ours, theirs = dense_net(), dense_net()
    result = loop_over(ours, SimpleGD(0.1), metrics=["accuracy"]).run(
        ArrayData(x, y, 20, shuffle=False), epochs=3, validation_data=(x[:30], y[:30])
    )
    theirs.compile(keras.optimizers.SGD(0.1), crossentropy(), metrics=["accuracy"])
    kept = theirs.fit(x, y, batch_size=20, epochs=3, shuffle=False, verbose=0, validation_data=(x[:30], y[:30]))
    for name, values in kept.history.items():
        np.testing.assert_allclose(result.epochs[name], values, rtol=1e-6)
    np.testing.assert_array_equal(result.epochs["step"], [5, 10, 15])


def test_evaluate_is_that_of_keras_and_leaves_the_model_alone():
    x, y = blobs()
    model = stateful_net()
    loop = loop_over(model, metrics=["accuracy", "sparse_categorical_crossentropy"])
    before = weights(model)
    measured = loop.evaluate((x, y))
    np.testing.assert_array_equal(weights(model), before)
    model.compile(loss=crossentropy(), metrics=["accuracy", "sparse_categorical_crossentropy"])
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-6)


def test_sample_weights_enter_the_loss():
    x, y = blobs()
    w = np.linspace(0, 2, len(x))
    result = loop_over(optimizer=SimpleGD(1e-9)).run(ArrayData(x, y, None, sample_weight=w), steps=1)
    logits = dense_net()(x).numpy()
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    assert result.history["loss"][0] == pytest.approx(np.mean(w * losses), rel=1e-12)


def test_any_loss_of_model_and_batch():
    x, _ = blobs()
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(2), keras.layers.Dense(6)])

    def reconstruction(model, batch):
        return tf.reduce_mean(tf.square(model(batch[0]) - batch[0]))

    loop = TrainLoop(model, Momentum(0.05), loss_fn=reconstruction)
    before = loop.evaluate(ArrayData(x))["loss"]
    assert before == pytest.approx(np.mean((model(x).numpy() - x) ** 2), rel=1e-12)
    loop.run(ArrayData(x, batch_size=24), epochs=20)
    assert loop.evaluate(ArrayData(x))["loss"] < 0.8 * before


def test_a_custom_loss_may_ask_whether_it_trains():
    seen = []

    def loss_fn(model, batch, training):
        seen.append(training)
        return tf.reduce_mean(model(batch[0], training=training) ** 2)

    loop = TrainLoop(dense_net(), SimpleGD(), loss_fn=loss_fn)
    loop.run(data(), steps=1)
    assert set(seen) == {True}
    seen.clear()
    loop.evaluate(data())
    assert set(seen) == {False}


# --- Hooks ----------------------------------------------------------------------------------------------


class Recording(Hook):
    def __init__(self, every_steps=None, act=None):
        super().__init__(every_steps)
        self.calls, self.steps, self.act, self.blocks = [], [], act, []

    def on_start(self, loop):
        self.loop = loop
        self.calls.append("start")

    def on_block(self, progress):
        self.blocks.extend(progress.logs["step"])
        self.last = progress
        if self.act:
            self.act(self, progress)

    def on_step(self, progress):
        self.steps.append((progress.step, int(self.loop.optimizer.iterations)))

    def on_epoch(self, progress, summary):
        self.calls.append(("epoch", summary["epoch"], progress.step))

    def on_end(self, result):
        self.calls.append(("end", result.status))


def test_hooks_are_called_at_their_steps_exactly():
    hooks = [Recording(3), Recording(4), Recording()]
    loop_over(hooks=hooks).run(data(), epochs=2)
    assert hooks[0].steps == [(3, 3), (6, 6), (9, 9)]
    assert hooks[1].steps == [(4, 4), (8, 8)]
    assert hooks[2].steps == []
    for hook in hooks:
        assert hook.calls == ["start", ("epoch", 1, 5), ("epoch", 2, 10), ("end", Status.FINISHED)]
        assert hook.blocks == list(range(1, 11))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.thorough_after(1)
def test_hooks_are_told_what_ended_a_run_halfway(error):
    class Fails(Hook):
        def on_step(self, progress):
            raise error

        def on_end(self, result):
            self.end = result.status, result.step, result.message

    hook = Fails(every_steps=2)
    loop = loop_over(hooks=[hook])
    assert loop.result is None
    with pytest.raises(error):
        loop.run(data(), epochs=2)
    assert hook.end == (Status.STOPPED, 2, f"the run was interrupted by {error.__name__}")
    assert (loop.result.status, loop.result.step, len(loop.result.history["loss"])) == (Status.STOPPED, 2, 2)


def test_a_loop_is_one_line():
    loop = loop_over(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="net"))
    assert repr(loop) == "TrainLoop(net: n = 15 float64; Momentum, step 0; not run yet)"
    loop.run((np.ones([8, 4]), np.zeros(8, int)), steps=2)
    assert repr(loop) == "TrainLoop(net: n = 15 float64; Momentum, step 2; FINISHED)"


def test_progress_knows_what_is_left():
    hook = Recording()
    loop, batches = loop_over(hooks=[hook]), data()
    loop.run(batches, steps=3)
    assert (hook.last.run_steps, hook.last.steps_per_epoch, hook.last.epoch_step) == (3, 5, 3)
    loop.run(batches, epochs=2)
    assert (hook.last.run_step, hook.last.run_steps, hook.last.step, hook.last.epoch) == (7, 7, 10, 2)


def test_a_hook_can_stop_the_run():
    hook = Recording(act=lambda self, progress: self.loop.stop("far enough") if progress.step >= 3 else None)
    result = loop_over(hooks=[hook], steps_per_call=1).run(data(), epochs=5)
    assert (result.status, result.message, result.step) == (Status.STOPPED, "far enough", 3)


def test_an_exception_in_a_hook_still_closes_the_others():
    def explode(self, progress):
        raise RuntimeError("mine")

    first, second = Recording(), Recording(act=explode)
    with pytest.raises(RuntimeError, match="mine"):
        loop_over(hooks=[first, second]).run(data(), epochs=1)
    assert first.calls[-1][0] == "end"


# --- Ends -----------------------------------------------------------------------------------------------


def test_epochs_and_steps_whichever_comes_first():
    assert loop_over().run(data(), epochs=1, steps=100).step == 5
    assert loop_over().run(data(), epochs=100, steps=7).step == 7


def test_a_begun_epoch_counts_when_it_is_finished():
    loop, batches = loop_over(), data()
    loop.run(batches, steps=3)
    result = loop.run(batches, epochs=1)
    assert result.step == 5
    np.testing.assert_array_equal(result.history["epoch"], [1, 1])


def test_a_failed_step_keeps_what_was_before_it():
    x, y = blobs()
    x[50, 0] = 1e200  # finite data whose loss is not: the third batch of 20

    def square(y_true, y_pred):
        return tf.reduce_sum(y_pred**2 * 1e300, -1)

    loop = TrainLoop(
        keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(2, use_bias=False)]), SimpleGD(1e-305), square
    )
    hook = Recording()
    loop.hooks = (hook,)
    with pytest.raises(TrainingError) as caught:
        loop.run(ArrayData(x, y, 20, shuffle=False), epochs=2)
    error = caught.value
    assert (error.step, error.status) == (3, Status.NONFINITE_LOSS)
    assert error.last_loss == error.result.history["loss"][1]
    assert "step 3" in str(error)
    assert f"{error.last_loss:.6g}" in str(error)
    assert np.all(np.isfinite(weights(loop.model)))
    assert int(loop.optimizer.iterations) == 2
    assert hook.calls[-1] == ("end", Status.NONFINITE_LOSS)


def test_a_method_that_converges_ends_the_run():
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])

    def kink(y, p):
        return (2 * tf.abs(p - y) - p)[:, 0]  # least at p = y, and no subgradient TensorFlow takes is zero

    result = TrainLoop(model, TestGD(rad=4.0), kink).run((np.ones((64, 1)), np.full((64, 1), 0.3)), epochs=1000)
    assert result.status == Status.CONVERGED
    assert result.step < 200
    assert weights(model)[0] == pytest.approx(0.3, abs=1e-12)


def test_an_infinite_dataset_runs_by_steps_only():
    endless = dataset().repeat()
    assert loop_over().run(endless, steps=12).step == 12
    with pytest.raises(ValueError, match="infinite"):
        loop_over().run(endless, epochs=1)
    with pytest.raises(ValueError, match="infinite"):
        loop_over().evaluate(endless)


def test_a_counter_moved_by_someone_else_is_noticed():
    loop = loop_over(steps_per_call=1)
    loop.hooks = (Recording(act=lambda self, p: self.loop.optimizer.iterations.assign(7)),)
    with pytest.raises(RuntimeError, match="counts 8 steps where the loop counts 2"):
        loop.run(data(), epochs=1)


# --- Bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: loop_over(optimizer=keras.optimizers.SGD()), "must be a GlobalVectorOptimizer, received SGD"),
        (lambda: TrainLoop(lambda x: x, SimpleGD(), "mse"), "must be a Keras model"),
        (lambda: TrainLoop(keras.Sequential([keras.layers.Dense(2)]), SimpleGD(), "mse"), "not built"),
        (lambda: loop_over(loss=None), "exactly one of loss"),
        (lambda: loop_over(loss_fn=lambda m, b: 0.0), "exactly one of loss"),
        (lambda: loop_over(loss=None, loss_fn=lambda m, b: 0.0, metrics=["accuracy"]), "metrics need loss"),
        (lambda: loop_over(loss=3), "loss must be"),
        (lambda: loop_over(metrics="accuracy"), "must be a list"),
        (lambda: loop_over(metrics=[3]), "metric"),
        (lambda: loop_over(hooks=Hook()), "hooks must be a list, received a Hook"),
        (lambda: loop_over(hooks=[Hook]), "a hook must be an instance"),
        (lambda: loop_over(hooks=[keras.callbacks.CSVLogger("log")]), "a hook must be an instance"),
        (lambda: loop_over(steps_per_call=0), "steps_per_call"),
        (lambda: loop_over(jit_compile=1), "jit_compile"),
        (lambda: loop_over(optimizer=TestGD(storage="factored"), jit_compile=True), "storage='dense'"),
        (lambda: loop_over().run(data()), "run needs epochs=, steps=, until_epoch= or until_step="),
        (lambda: loop_over().run(data(), epochs=0), "epochs"),
        (lambda: loop_over().run(data(), steps=-1), "steps"),
        (lambda: loop_over().run(data(), steps=2.5), "steps"),
        (lambda: loop_over().run([1, 2], epochs=1), "received list"),
        (lambda: loop_over().run(data(), steps=1, validation_data=[1, 2]), "received list"),
        (lambda: loop_over().run(([[1.0, 2.0]], [0]), epochs=1), "lists of numbers with np.asarray"),
        (lambda: loop_over().evaluate(([], [])), "an empty structure"),
        (lambda: loop_over().run(dataset().take(0), epochs=1), "no batches"),
        (lambda: loop_over(jit_compile=True).run(dataset(), epochs=1), "ArrayData"),
        (lambda: loop_over().run(ArrayData(blobs()[0]), epochs=1), "1 parts"),
        (lambda: loop_over(loss=lambda y, p: tf.reduce_sum(p), metrics=["nothing"]), "nothing"),
        (lambda: loop_over(loss=None, loss_fn=lambda m, b: m(b[0])).run(data(), epochs=1), "scalar"),
        (lambda: loop_over(loss=None, loss_fn=lambda m, b: tf.reduce_sum(b[0])).run(data(), epochs=1), "None"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(make, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(".", r"\.")):
        make()


@pytest.mark.parametrize("look", [lambda loop: loop.run(data(), steps=1), lambda loop: loop.inspect(data())])
@pytest.mark.thorough_after(1)
def test_a_layer_frozen_since_the_loop_was_made_is_not_trained_on(look):
    model = dense_net()
    loop = loop_over(model)
    loop.run(data(), steps=1)
    model.layers[0].trainable = False
    before = weights(model)
    with pytest.raises(ValueError, match="a new loop around it"):
        look(loop)
    np.testing.assert_array_equal(weights(model), before)
    model.layers[0].trainable = True
    look(loop)


def test_a_run_inside_of_a_run_is_refused():
    hook = Recording(act=lambda self, progress: self.loop.run(data(), steps=1))
    loop = loop_over(hooks=[hook])
    with pytest.raises(RuntimeError, match="runs already"):
        loop.run(data(), epochs=1)
    loop.hooks = ()
    assert loop.run(data(), steps=1).status == Status.FINISHED


def test_a_frozen_model_has_nothing_to_train():
    model = dense_net()
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable variables"):
        loop_over(model)


def test_keras_names_mean_the_same():
    loop = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), steps_per_execution=3, run_eagerly=True)
    assert loop._phase.pace.limit() == 3
    loop.run(blobs(), steps=2)
    assert loop.traces == 0
    with pytest.raises(ValueError, match="steps_per_call and steps_per_execution are two names of one argument"):
        TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), steps_per_call=2, steps_per_execution=3)
