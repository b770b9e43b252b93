"""What Keras offers and an optimizer of the whole vector rejects: with the reason, and with what to do instead."""

import keras
import numpy as np
import pytest
from environment import seed_generators
from networks import blobs, crossentropy, dense_net

from trainloop import Adam, ModelObjective, SimpleGD, TestGD, TrainLoop

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def fit(optimizer, *callbacks, epochs=3):
    model = dense_net()
    model.compile(optimizer, crossentropy(), run_eagerly=True)
    return model.fit(*blobs(), batch_size=96, epochs=epochs, verbose=0, callbacks=callbacks)


def plateau():
    """Finds that no epoch is better: from the second one on it wants a shorter step."""
    return keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)


def test_a_callback_changes_a_learning_rate_that_is_a_number():
    optimizer = SimpleGD(0.4)
    fit(optimizer, plateau())
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            TestGD,
            r"TestGD has no learning rate to set, received 0.5; .*shrink_steps\(0.5\) .* state.radius$",
        ),
        (lambda: SimpleGD(lambda: 0.4), r"is a function or a schedule and cannot be set to 0.2; .*SimpleGD\(0.01\)"),
        (lambda: Adam(keras.optimizers.schedules.CosineDecay(0.4, 10**9)), r"cannot be set to 0.\d+; .*Adam\(0.01\)"),
    ],
)
@pytest.mark.thorough_after(1)
def test_a_callback_cannot_change_another_one(make, words):
    with pytest.raises(ValueError, match=words):
        fit(make(), plateau())


def test_the_replacement_that_is_named_works():
    class Shrink(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.shrink_steps(0.5)

    class Nothing(keras.callbacks.Callback):
        pass

    radii = []
    for callback in (Shrink(), Nothing()):
        optimizer = TestGD()
        fit(optimizer, callback, epochs=1)
        radii.append(float(optimizer.state["radius"]))
    assert radii[0] == pytest.approx(0.5 * radii[1])


@pytest.mark.parametrize("make", [SimpleGD, Adam, TestGD])
def test_nothing_is_excluded_from_a_decay_that_is_not_there(make):
    with pytest.raises(ValueError, match=r"would change x outside of update; trainloop.Adam\(weight_decay"):
        make().exclude_from_weight_decay(var_names=["bias"])


def test_scales_of_float8_layers_are_no_part_of_x():
    seed_generators()
    layer = keras.layers.Dense(16, dtype="float32")
    model = keras.Sequential([keras.Input((16,)), layer])
    layer.quantize("float8")
    with pytest.raises(ValueError, match=r"/inputs_scale is to be overwritten .* 'mixed_bfloat16' or 'float32'"):
        SimpleGD().build(model.trainable_variables)
    with pytest.raises(ValueError, match="overwritten"):
        TrainLoop(model, SimpleGD(), "mse")


def unbuilt():
    return keras.Sequential([keras.layers.Dense(3)])


def frozen():
    model = dense_net()
    model.trainable = False
    return model


@pytest.mark.parametrize("make", [lambda model: TrainLoop(model, SimpleGD(), "mse"), lambda model: objective(model)])
@pytest.mark.parametrize(("model", "words"), [(unbuilt, "give it an Input, or call it"), (frozen, "no trainable var")])
def test_a_model_without_weights_to_train(make, model, words):
    with pytest.raises(ValueError, match=words):
        make(model())


def objective(model):
    x, y = blobs()
    return ModelObjective(model, "mse", (x, np.eye(3)[y]))
