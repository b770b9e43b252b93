"""Steps as plain Python: the same results, and everything inside can be looked at."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, stateful_net, weights

from trainloop import (
    LBFGS,
    SAM,
    Adam,
    ArrayData,
    GlobalVectorOptimizer,
    LayerNorms,
    Momentum,
    NewtonCG,
    SimpleGD,
    StopWhen,
    TestGD,
    TrainingError,
    TrainLoop,
)

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def data():
    return ArrayData(*blobs(), 24)


def dataset():
    return tf.data.Dataset.from_tensor_slices(blobs()).shuffle(96, seed=3).batch(24).map(lambda x, y: (2 * x, y))


@pytest.mark.parametrize(
    ("method", "net", "make_data", "options"),
    [
        (lambda: Adam(0.01, global_clipnorm=0.5), stateful_net, data, {"metrics": ["accuracy"], "microbatch_size": 16}),
        (lambda: SAM(Momentum(0.05)), dense_net, dataset, {"steps_per_call": 3, "hooks": [LayerNorms()]}),
        (lambda: TestGD(rad=5.0, storage="factored:3:dense"), dense_net, data, {}),
        (lambda: LBFGS(m=3), dense_net, data, {"metrics": ["accuracy"]}),
    ],
)
@pytest.mark.thorough_after(1)
def test_eager_and_compiled_steps_are_the_same_to_rounding(method, net, make_data, options):
    ends = []
    for eager in (False, True):
        model = net()
        loop = TrainLoop(model, method(), crossentropy(), eager=eager, **options)
        result = loop.run(make_data(), steps=6, validation_data=data())
        assert loop.traces == (0 if eager else 1)
        ends.append((weights(model), result))
    (compiled, first), (eager, second) = ends
    np.testing.assert_allclose(eager, compiled, rtol=1e-8, atol=1e-10)
    # Keras counts models: the columns of the two have other names.
    for (name, expected), received in zip(first.history.items(), second.history.values(), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-8, err_msg=name)
    for name in set(first.epochs) - {"seconds"}:
        np.testing.assert_allclose(second.epochs[name], first.epochs[name], rtol=1e-8, err_msg=name)
    assert second.evaluations == first.evaluations


class Looked(GlobalVectorOptimizer):
    """Gradient descent that keeps what it sees as NumPy arrays, also inside of a function that would be compiled."""

    def __init__(self, **kwargs):
        super().__init__(0.1, **kwargs)
        self.seen = []

    def init_state(self, x):
        return {}

    def update(self, x, g, state):
        @tf.function
        def half(g):
            self.seen.append(g.numpy())
            return g / 2

        return x - half(g), state


class Talking(keras.layers.Layer):
    """Passes on what it gets and keeps its sum."""

    def __init__(self):
        super().__init__()
        self.sums = []

    def call(self, inputs):
        self.sums.append(float(inputs.numpy().sum()))
        return inputs


def test_values_are_there_inside_of_everything():
    talking, losses = Talking(), []
    inputs = keras.layers.Input((6,))
    # As a subclassed model, because a functional one would call the layer without values first.
    dense = keras.layers.Dense(3)
    dense.build(inputs.shape)

    class Net(keras.Model):
        def call(self, x):
            return dense(talking(x))

    model = Net()
    model.dense, model.built = dense, True

    def loss(targets, predictions):
        losses.append(predictions.numpy().mean())
        return keras.losses.sparse_categorical_crossentropy(targets, predictions, from_logits=True)

    method = Looked()
    loop = TrainLoop(model, method, loss, eager=True)
    history = loop.run(data(), steps=3).history
    np.testing.assert_allclose([np.linalg.norm(g) for g in method.seen], history["grad_norm"], rtol=1e-12)
    assert len(talking.sums) == len(losses) == 3
    assert np.isfinite(loop.evaluate(data())["loss"])
    # Hessian products ask whether the loss stops gradients, which takes a graph; where there is none, differences do.
    products = TrainLoop(model, NewtonCG(curvature="hessian"), loss, eager=True)
    with pytest.warns(UserWarning, match="cannot be traced"):
        assert products.run(data(), steps=1).evaluations["Hv"] > 0


class Broken(Looked):
    """Fails in its second step."""

    def update(self, x, g, state):
        if self.seen:
            raise ZeroDivisionError("the user's own mistake")
        return super().update(x, g, state)


@pytest.mark.parametrize("before", [False, True])
def test_a_mistake_in_update_arrives_with_its_line_and_the_switch_is_put_back(before):
    tf.config.run_functions_eagerly(before)
    try:
        loop = TrainLoop(dense_net(), Broken(), crossentropy(), eager=True)
        with pytest.raises(ZeroDivisionError, match="own mistake") as raised:
            loop.run(data(), steps=5)
        assert tf.config.functions_run_eagerly() is before
    finally:
        tf.config.run_functions_eagerly(False)
    last = raised.traceback[-1]
    assert (last.path.name, last.name) == ("test_eager.py", "update")
    assert int(loop.optimizer.iterations) == 1


def test_failures_and_hooks_work_as_in_compiled_steps():
    x, y = blobs()
    x[0] = 1e200
    loop = TrainLoop(dense_net(), SimpleGD(1e200), "mse", eager=True)
    with pytest.raises(TrainingError, match="nonfinite"):
        loop.run((x, np.eye(3)[y]), steps=20)
    two = StopWhen(evaluations=2, every_steps=1)
    stopped = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), eager=True, hooks=[two])
    assert stopped.run(data(), epochs=1).step == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eager": True, "jit_compile": True}, "choose one of the two"),
        ({"eager": 1}, "eager must be True or False, received 1"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        TrainLoop(dense_net(), SimpleGD(), crossentropy(), **options)
