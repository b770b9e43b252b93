"""Models that compute in 16 bits: bfloat16 trains in both engines, float16 is refused."""

import keras
import numpy as np
import pytest
from environment import set_precision
from networks import blobs, crossentropy, dense_net

from trainloop import Adam, ArrayData, TrainLoop


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mixed_bfloat16_trains_like_float32(jit_compile, float32):
    x, y = blobs()
    losses = {}
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        model = dense_net()
        result = TrainLoop(model, Adam(0.02), crossentropy(), jit_compile=jit_compile).run(
            ArrayData(x.astype("float32"), y, 24), epochs=10
        )
        assert {v.dtype for v in model.variables} == {"float32"}
        assert result.history["loss"].dtype == np.float32
        losses[policy] = result.epochs["loss"]
    assert losses["mixed_bfloat16"][-1] < 0.8 * losses["mixed_bfloat16"][0]
    np.testing.assert_allclose(losses["mixed_bfloat16"], losses["float32"], rtol=0.03)


def test_float16_is_refused_in_a_layer_inside_of_a_layer(float32):
    keras.config.set_dtype_policy("mixed_float16")
    inner = dense_net()
    set_precision("float32")
    model = keras.Sequential([keras.layers.Input((6,)), inner])
    with pytest.raises(ValueError, match=r"computes in float16, where gradients below 6e-8.*mixed_bfloat16"):
        TrainLoop(model, Adam(), crossentropy())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits_are_refused(dtype):
    set_precision(dtype)
    with pytest.raises(ValueError, match=rf"kernel is {dtype}, in which steps.*mixed_bfloat16"):
        Adam().build(dense_net().trainable_variables)


def test_a_loss_of_fewer_digits_than_the_weights_is_told(float32):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, dtype="float64")])
    for loss in ("mse", keras.losses.MeanSquaredError()):
        with pytest.warns(UserWarning, match="weights are float64, but Keras computes the loss in float32"):
            TrainLoop(model, Adam(), loss)
    TrainLoop(model, Adam(), keras.losses.MeanSquaredError(dtype="float64"))
    TrainLoop(model, Adam(), loss_fn=lambda model, batch: 0.0)
