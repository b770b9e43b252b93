"""Models that compute in 16 bits: bfloat16 trains in both engines, float16 is refused."""

import keras
import numpy as np
import pytest
from environment import set_precision
from networks import blobs, crossentropy, dense_net

from trainloop import LBFGS, Adam, ArrayData, NaturalGradient, Phase, Points, TrainLoop
from trainloop.loop import arguments


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.thorough_after(1)
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


@pytest.mark.parametrize(
    ("dtype", "method", "size", "told"),
    [
        ("float32", LBFGS, None, 1),
        ("float32", NaturalGradient, None, 1),
        ("float32", LBFGS, 8, 0),
        ("float32", Adam, None, 0),
        ("float64", LBFGS, None, 0),
    ],
)
@pytest.mark.thorough_after(1)
def test_what_float32_costs_is_logged_once(dtype, method, size, told, monkeypatch, caplog):
    monkeypatch.setattr(arguments, "_told", set())
    set_precision(dtype)
    x = np.random.default_rng(0).normal(size=(16, 2)).astype(dtype)
    for points in (ArrayData(x, x[:, :1], size), {"a": x} if size is None else Points({"a": x}, {"a": size})):
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        residual = (lambda m, p: m(p) - 1) if not isinstance(points, ArrayData) else (lambda m, b: m(b[0]) - b[1])
        residuals = residual if isinstance(points, ArrayData) else {"a": residual}
        TrainLoop(model, method(), residuals=residuals).run(points, steps=1)
    lines = [record.getMessage() for record in caplog.records if "in float32" in record.getMessage()]
    assert [line.split()[0] for line in lines] == [method.__name__] * told


@pytest.mark.thorough
def test_a_later_phase_tells_it_too(monkeypatch, caplog, float32):
    monkeypatch.setattr(arguments, "_told", set())
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    loop = TrainLoop(model, [Phase(Adam(), steps=2), Phase(LBFGS())], residuals=lambda m, p: m(p["a"]) - 1)
    loop.run({"a": np.ones([4, 2], "float32")}, steps=1)
    assert not caplog.records
    loop.run({"a": np.ones([4, 2], "float32")}, steps=3)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["LBFGS"]
