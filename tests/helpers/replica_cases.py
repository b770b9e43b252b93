"""Training on two replicas of one process. `test_replicas` runs this in a process that has two devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from documentation import run_blocks
from environment import ROOT, rewrite_graphs
from loss_kinds import KINDS, ON_ONE_DEVICE
from networks import crossentropy, stateful_net
from training_cases import CASES, CONVEX, STEPS, data, net, trained

import trainloop as tl
from trainloop.distributed import replicas
from trainloop.vectors import linalg

numbers_sent = run_blocks(ROOT / "docs" / "several-devices.md")["numbers_sent"]

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="module", autouse=True)
def _graphs_as_they_are():
    rewrite_graphs(False)
    yield
    rewrite_graphs(True)


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def on_two(strategy, make=net, *arguments, **keywords):
    with strategy.scope():
        return make(*arguments, **keywords)


def average_of(model):
    """The moving mean of the BatchNormalization."""
    return next(v.numpy() for v in model.variables if "moving_mean" in v.path)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [(name, "float64", 1e-12) for name in CASES]
    # Conjugate gradients amplify the rounding of float32 products.
    + [
        (name, "float32", 1e-5 if name == "newtoncg" else 1e-6)
        for name in CASES
        if name not in ("clipped", "testgd factored")
    ],
)
def test_two_replicas_take_the_steps_of_one(strategy, name, dtype, tolerance):
    make, batch_size = CASES[name]
    batches = data(batch_size, dtype)
    one, losses, _, _ = trained(make(), net(dtype, convex=name in CONVEX), batches, STEPS.get(name, 50))
    model = on_two(strategy, net, dtype, convex=name in CONVEX)
    two, losses_of_two, result, loop = trained(make(), model, batches, STEPS.get(name, 50))
    np.testing.assert_allclose(two, one, rtol=0, atol=tolerance)
    np.testing.assert_allclose(losses_of_two, losses, rtol=0, atol=tolerance)
    # One vector for every evaluation, and nothing else.
    assert loop.replicas.all_reduces == result.evaluations["f"] + result.evaluations.get("Gv", 0)
    assert loop.replicas.numbers == numbers_sent(len(one), result.evaluations, result.step)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_weights_of_samples_and_microbatches_count_as_on_one(strategy, reduction):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    batches, rate = data(50, weighted=True), 0.001 if reduction == "sum" else 0.1
    arguments = {"loss": loss, "metrics": ["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True)]}
    one, losses, result, _ = trained(tl.SimpleGD(rate), net(), batches, 6, **arguments)
    arguments["microbatch_size"] = 7
    two, losses_of_two, result_of_two, loop = trained(tl.SimpleGD(rate), on_two(strategy), batches, 6, **arguments)
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-14)
    np.testing.assert_allclose(losses_of_two, losses, rtol=1e-14)
    for name in ("accuracy", "sparse_categorical_crossentropy"):
        np.testing.assert_allclose(result_of_two.epochs[name], result.epochs[name], rtol=1e-6)
    assert loop.traces == 1


def test_an_evaluation_is_that_of_one(strategy):
    x, y = data().arrays
    one = tl.TrainLoop(net(), tl.SimpleGD(0.1), crossentropy(), metrics=["accuracy"])
    two = tl.TrainLoop(on_two(strategy), tl.SimpleGD(0.1), crossentropy(), metrics=["accuracy"])
    batches = tl.ArrayData(x, y, 19)
    assert two.evaluate(batches) == pytest.approx(one.evaluate(batches), rel=1e-13)
    assert two.evaluate(tf.data.Dataset.from_tensor_slices((x, y)).batch(95)) == pytest.approx(one.evaluate(batches))


def test_a_dataset_and_a_loss_function_with_a_mean_of_keras(strategy):
    def loss_fn(model, batch):
        return crossentropy()(batch[1], model(batch[0]))

    def run(model):
        dataset = tf.data.Dataset.from_tensor_slices(data().arrays).batch(19)
        loop = tl.TrainLoop(model, tl.SimpleGD(0.1), loss_fn=loss_fn)
        loop.run(dataset, epochs=1)
        return loop.optimizer._vector.read().numpy()

    np.testing.assert_allclose(run(on_two(strategy)), run(net()), rtol=0, atol=1e-15)


def test_batch_normalisation_is_that_of_each_replica(strategy):
    """f, step and averages by hand, from the two halves of a batch."""
    model, reference = on_two(strategy, net, normalise=True), net(normalise=True)
    x, y = data().arrays
    x, y = x[:10], y[:10]
    loop = tl.TrainLoop(model, tl.SimpleGD(0.1), crossentropy())
    with tf.GradientTape() as tape:
        halves = [crossentropy()(y[half], reference(x[half], training=True)) for half in (slice(0, 5), slice(5, 10))]
        f = sum(halves) / 2 + sum(reference.losses)
    gradients = tape.gradient(f, reference.trainable_variables)
    hidden = reference.layers[0](x).numpy()
    result = loop.run(tl.ArrayData(x, y, None), steps=1)
    n, averages = loop.optimizer.layout.size, 2 * hidden.shape[1]
    assert loop.replicas.numbers == numbers_sent(n, result.evaluations, 1, averages=averages)
    assert result.history["loss"][0] == pytest.approx(float(f), rel=1e-14)
    expected = [v.numpy() - 0.1 * g.numpy() for v, g in zip(reference.trainable_variables, gradients, strict=True)]
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=1e-14)
    np.testing.assert_allclose(average_of(model), 0.01 * hidden.mean(0), rtol=1e-12)


def test_an_infinity_on_the_second_replica_alone_is_caught(strategy):
    x, y = (array.numpy() for array in data().arrays)
    x[90] = np.inf
    model = on_two(strategy, stateful_net)
    loop = tl.TrainLoop(model, tl.Adam(), crossentropy(), metrics=["accuracy"])
    batches = data(32)
    batches.shuffle, batches.arrays = False, (tf.constant(x), tf.constant(y))
    with pytest.raises(tl.TrainingError, match="step 3 failed") as failure:
        loop.run(batches, epochs=1)
    assert failure.value.status == tl.Status.NONFINITE_LOSS
    again = tl.TrainLoop(on_two(strategy, stateful_net), tl.Adam(), crossentropy(), metrics=["accuracy"])
    again.run(batches, steps=2)
    for variable, expected in zip(model.variables, again.model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy())


def test_a_checkpoint_is_for_any_number_of_replicas(strategy, tmp_path):
    def run(model, epochs, folder, restore):
        hooks = [tl.SaveCheckpoint(tmp_path / folder)]
        loop = tl.TrainLoop(model, tl.Adam(), crossentropy(), metrics=["accuracy"], hooks=hooks)
        assert not restore or loop.restore(tmp_path / restore) == 2
        result = loop.run(data(64), until_epoch=epochs)
        return [v.numpy() for v in model.variables], result.epochs["accuracy"][-1]

    whole, accuracy = run(on_two(strategy), 2, "whole", None)
    run(on_two(strategy), 1, "half", None)
    assert (tmp_path / "half").exists()
    for make, tolerance in ((lambda: on_two(strategy), 0), (net, 1e-14)):
        resumed, there = run(make(), 2, f"from half {tolerance}", "half")
        assert there == accuracy
        for a, b in zip(resumed, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_made_and_run_inside_of_the_scope(strategy):
    expected = trained(tl.Adam(), net(), data(40), 5, metrics=["accuracy"])[0]
    with strategy.scope():
        model = net()
        metric = keras.metrics.SparseCategoricalAccuracy(name="own")
        loop = tl.TrainLoop(model, tl.Adam(), crossentropy(), metrics=[metric])
        assert not any(hasattr(v, "distribute_strategy") for v in loop.optimizer._memory.variables.values())
        result = loop.run(data(40), steps=5, validation_data=data(40))
    np.testing.assert_allclose(loop.optimizer._vector.read(), expected, rtol=0, atol=1e-14)
    assert result.epochs["val_own"][-1] > 0


@pytest.mark.parametrize(
    ("make", "options"),
    [(tl.LBFGS, {}), (tl.LBFGS, {"eager": True}), (tl.Adam, {"jit_compile": True})],  # XLA compiles LBFGS for 20 s
)
def test_a_strategy_with_one_device_is_no_strategy(make, options):
    expected = trained(make(), net(), data(40), 3, **options)[0]
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        loop, batches = tl.TrainLoop(net(), make(), crossentropy(), **options), data(40)
        seen = loop.inspect(batches)
        result = loop.run(batches, steps=3, validation_data=batches)
    assert seen.f == result.history["loss"][0]
    np.testing.assert_array_equal(loop.optimizer._vector.read(), expected)


def test_a_step_looked_at_is_the_one_that_is_taken(strategy):
    model = on_two(strategy, stateful_net)
    loop = tl.TrainLoop(model, tl.SimpleGD(0.1), crossentropy())
    before = [v.numpy() for v in model.variables]
    seen = loop.inspect(data(32))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    loop.run(data(32), steps=1)
    np.testing.assert_array_equal(loop.optimizer._vector.read(), seen.x_new)


def test_a_long_update_compiled_by_xla_is_the_same(strategy, monkeypatch):
    expected = trained(tl.Adam(), net(), data(40), 5)[0]
    monkeypatch.setattr(linalg, "VERY_LONG", 10)
    fused = trained(tl.Adam(), on_two(strategy), data(40), 5)[0]
    np.testing.assert_allclose(fused, expected, rtol=0, atol=1e-14)


def test_what_several_replicas_cannot_do_is_refused(strategy):
    model = on_two(strategy)
    for arguments, reason in (({"jit_compile": True}, "all-reduce"), ({"eager": True}, "one device")):
        with pytest.raises(ValueError, match=reason):
            tl.TrainLoop(model, tl.SimpleGD(0.1), crossentropy(), **arguments)
    with strategy.scope():
        synchronised = keras.Sequential([keras.layers.Input((6,)), keras.layers.BatchNormalization(synchronized=True)])
        model.compile(optimizer=tl.SimpleGD(0.1), loss=crossentropy())
    with pytest.raises(ValueError, match="synchronized=False"):
        tl.TrainLoop(synchronised, tl.SimpleGD(0.1), "mse")
    with pytest.raises(ValueError, match=r"use trainloop\.TrainLoop"):
        model.fit(*data().arrays, verbose=0)


def net_of_two(dtype="float64"):
    """A network with two outputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype=dtype)
    hidden = keras.layers.Dense(5, "tanh", kernel_regularizer="l2", dtype=dtype)(inputs)
    return keras.Model(inputs, {name: keras.layers.Dense(1, dtype=dtype)(hidden) for name in "pq"})


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_several_outputs_are_logged_as_on_one_replica(strategy, reduction):
    mse, mae = keras.losses.MeanSquaredError(reduction=reduction), keras.losses.MeanAbsoluteError(reduction=reduction)
    x, y, weight = data(weighted=True).arrays
    batches = tl.ArrayData(x, {"p": y[:, None], "q": -y[:, None]}, 95, sample_weight=weight)
    options = {"loss_weights": {"p": 2.0, "q": 1.0}, "metrics": {"q": ["mse"]}, "microbatch_size": 20}
    one, two = (
        tl.TrainLoop(model, tl.SimpleGD(1e-3), {"p": mse, "q": mae}, **options).run(
            batches, epochs=2, validation_data=batches
        )
        for model in (net_of_two(), on_two(strategy, net_of_two))
    )
    assert {"p_loss", "q_loss", "q_mse", "val_p_loss"} <= one.epochs.keys()
    for name in one.epochs.keys() - {"seconds"}:
        np.testing.assert_allclose(two.epochs[name], one.epochs[name], rtol=1e-12, err_msg=name)


def test_losses_that_are_no_sums_over_replicas_are_refused(strategy):
    model = on_two(strategy, net_of_two)
    x, y = data().arrays
    for loss, reason in (
        (keras.losses.Dice(), "one number for a whole batch"),
        (keras.losses.Circle(), "compares the"),
    ):
        with pytest.raises(ValueError, match=reason):
            tl.TrainLoop(model, tl.SimpleGD(0.1), {"p": "mse", "q": loss}).run((x, {"p": y, "q": y}), epochs=1)


def test_parts_of_a_batch_differ_by_one_sample_at_most():
    for count in (2, 3, 5):
        for samples in (1, 2, 4, 5, 17):
            parts = [replicas.Share(index, count)(samples) for index in range(count)]
            covered = [i for begin, end, has_any in parts if has_any for i in range(int(begin), int(end))]
            assert covered == list(range(samples))
            sizes = [int(end - begin) * bool(has_any) for begin, end, has_any in parts]
            assert max(sizes) - min(sizes) <= 1
            assert all(0 <= begin < end <= samples for begin, end, _ in parts)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:the loss stops gradients")
def test_every_kind_of_loss_is_that_of_one_device_or_says_why_not(strategy, name):
    """A step with an evaluation at another point, with the batch cut in two."""
    kind = KINDS[name]

    def weights_after_a_step(model):
        loop = tl.TrainLoop(model, tl.SAM(tl.SimpleGD(0.02), rho=0.1), **kind.arguments())
        if isinstance(kind.batch, tuple):
            x, y, *weight = kind.batch
            data = tl.ArrayData(x, y, None, sample_weight=weight[0] if weight else None)
        else:
            data = tf.data.Dataset.from_tensors(kind.batch)
        loop.run(data, steps=1)
        return np.concatenate([np.ravel(v.numpy()) for v in model.trainable_variables])

    with strategy.scope():
        model = kind.make()
    if name in ON_ONE_DEVICE:
        with pytest.raises(ValueError, match=ON_ONE_DEVICE[name]):
            weights_after_a_step(model)
        return
    two = weights_after_a_step(model)
    if kind.parts:
        np.testing.assert_allclose(two, weights_after_a_step(kind.make()), rtol=0, atol=1e-9)
    else:
        assert np.all(np.isfinite(two))  # another function of the samples of each part, as documented


class Noisy(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype)


def test_random_numbers_that_cannot_be_repeated_are_named_where_values_are_compared(strategy):
    x, y = KINDS["mean squared error"].batch
    for optimizer in (tl.SimpleGD(0.01), tl.LBFGS()):
        with strategy.scope():
            model = keras.Sequential([keras.layers.Input((4,)), Noisy(), keras.layers.Dense(3)])
        loop = tl.TrainLoop(model, optimizer, "mse")
        if isinstance(optimizer, tl.SimpleGD):
            assert loop.run((x, y), steps=1).step == 1
            continue
        with pytest.raises(ValueError, match=r"random numbers that cannot be repeated \(RandomStandardNormal"):
            loop.run((x, y), steps=1)


def test_every_copy_is_put_back_when_an_operation_fails_at_another_point(strategy):
    kind = KINDS["an assertion"]
    with strategy.scope():
        model = kind.make()
    before = [[copy.numpy() for copy in v.value.values] for v in model.trainable_variables]
    loop = tl.TrainLoop(model, tl.SAM(tl.SimpleGD(0.02), rho=1e6), **kind.arguments())
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        loop.run(kind.batch, steps=1)
    after = [[copy.numpy() for copy in v.value.values] for v in model.trainable_variables]
    for copies, now in zip(before, after, strict=True):
        for copy, same in zip(copies, now, strict=True):
            np.testing.assert_array_equal(copy, same)


@pytest.mark.parametrize(
    ("name", "curvature"),
    [
        ("bilinear resizing", "hessian"),
        ("bilinear resizing", "gauss_newton"),
        ("a recomputed block", "hessian"),
        ("layer normalisation", "hessian"),
    ],
)
@pytest.mark.filterwarnings("ignore:the loss stops gradients")
def test_curvature_products_are_those_of_one_device(strategy, name, curvature):
    kind = KINDS[name]
    weights = []
    for model in (kind.make(), on_two(strategy, kind.make)):
        loop = tl.TrainLoop(model, tl.NewtonCG(curvature=curvature), **kind.arguments())
        loop.run(tl.ArrayData(*kind.batch, None), steps=2)
        weights.append(np.concatenate([np.ravel(v.numpy()) for v in model.trainable_variables]))
    np.testing.assert_allclose(*weights, rtol=0, atol=1e-6)


def test_a_python_function_with_a_state_of_its_own_is_named(strategy):
    calls = iter(range(1, 1000))

    def loss_fn(model, batch):
        scale = tf.ensure_shape(tf.numpy_function(lambda: float(next(calls)), [], tf.float64), [])
        return scale * tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)

    kind = KINDS["mean squared error"]
    loop = tl.TrainLoop(on_two(strategy, kind.make), tl.LBFGS(m=3), loss_fn=loss_fn)
    with pytest.raises(ValueError, match=r"must give the same value.*PyFunc"):
        loop.run(tl.ArrayData(*kind.batch, None), steps=2)


def test_gradients_of_terms_and_of_samples_are_computed_on_one_device(strategy):
    def loss_fn(model, batch):
        return {"a": tf.reduce_mean(model(batch[0]) ** 2), "b": tf.reduce_mean((model(batch[0]) - 1) ** 2)}

    x, y = np.ones([8, 6]), np.zeros([8], "int32")
    model = on_two(strategy, tl.mlp, (6,), 3, (4,))
    with pytest.raises(ValueError, match="the gradients of terms are computed on one device"):
        tl.TrainLoop(model, tl.Combine(tl.Adam(), "upgrad"), loss_fn=loss_fn).run((x, y), steps=1)
    with pytest.raises(ValueError, match="GradientNoise measures on one device"):
        tl.TrainLoop(model, tl.Adam(), crossentropy(), hooks=[tl.GradientNoise(1, (x, y))]).run((x, y), steps=1)
