"""Gradient descent at the edge of stability: the sharpness of the loss rises until it is 2 / learning rate, and stays.

On a quadratic function gradient descent diverges where an eigenvalue of the Hessian exceeds 2 / learning rate. On a
network it does not: the largest eigenvalue, the sharpness, hovers just there (Cohen et al. 2021, Gradient descent on
neural networks typically occurs at the edge of stability).

    python docs/examples/curvature.py         and the two figures of docs/curvature.md, in docs
    python docs/examples/curvature.py 0.3     a third of the steps, no figures
"""

import pathlib
import sys

import keras
import numpy as np

import trainloop as tl

RATES = (2.4, 1.6)
DOCS = pathlib.Path(__file__).resolve().parent.parent


def digits(count=500):
    """Digits of 7 x 7 pixels, less their mean [count, 49], and their classes, each a row with a one [count, 10]."""
    data = tl.load("digits")
    x = data.x_train[:count, 2::4, 2::4, 0].reshape(count, -1)
    return tl.ArrayData(x - x.mean(0), np.eye(10, dtype="float32")[data.y_train[:count]], batch_size=None)


def build():
    """A network of 2,410 weights."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input([49]), keras.layers.Dense(40, "tanh"), keras.layers.Dense(10)])


def trained(rate, data, steps):
    """(the model after so many steps of gradient descent, those after which its sharpness was measured, and that)."""
    model = build()
    look = tl.Measure(50, sharpness=lambda model: tl.curvature(model, "mse", data=data).top()[0][0])
    result = tl.TrainLoop(model, tl.SimpleGD(rate), "mse", hooks=[look]).run(data, steps=steps)
    seen = np.isfinite(result.history["sharpness"])
    return model, result.history["step"][seen], result.history["sharpness"][seen]


def main(scale=1.0, draw=False):
    """Train with this share of 3,000 steps; how far the sharpness at the end is from 2 / rate, relatively."""
    data, error, curves = digits(), 0.0, {}
    for rate in RATES:
        model, *curves[rate] = trained(rate, data, int(3_000 * scale))
        last = curves[rate][1][-10:].mean()
        error = max(error, abs(last * rate / 2 - 1))
        print(f"learning rate {rate}: sharpness {last:.2f}, 2 / learning rate {2 / rate:.2f}")
    if draw:
        _draw_sharpness(curves).savefig(DOCS / "curvature-sharpness.png", dpi=120)
        spectrum = tl.curvature(model, "mse", data=data).spectrum(probes=10, steps=100)
        spectrum.plot(DOCS / "curvature-spectrum.png", "Hessian of a network of 2,410 weights")
    print(f"largest relative difference {error:.2e}")
    return error


def _draw_sharpness(curves):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for (rate, (steps, sharpness)), colour in zip(curves.items(), ("#0072B2", "#D55E00"), strict=True):
        axes.plot(steps, sharpness, color=colour, linewidth=1.2, label=f"learning rate {rate}")
        axes.axhline(2 / rate, color=colour, linestyle="--", linewidth=0.8, label=f"2 / {rate}")
    axes.set_xlabel("step")
    axes.set_ylabel("largest eigenvalue of the Hessian")
    axes.set_ylim(0)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), draw=not sys.argv[1:])
