"""The viscosity of Burgers' equation from noisy samples of its solution: LevenbergMarquardt on two terms.

    u_t + u u_x = nu u_xx        -1 <= x <= 1, 0 <= t <= 1; nu unknown, 0.01 / pi in truth
    u + noise at 500 places

The start is ten times too large. log nu is trained with the network, so that nu stays positive and its unit does not
matter. The equation and the exact solution are those of burgers.py.

    python docs/examples/inverse_burgers.py
    python docs/examples/inverse_burgers.py 0.5     half of the steps
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from burgers import NU, exact, pde

import trainloop as tl

# Samples with noise count less than the equation, which holds exactly.
WEIGHTS = {"pde": 1.0, "misfit": 1.0}


def start():
    """A variable with the logarithm of ten times the true viscosity."""
    return tf.Variable(np.log(10 * NU), dtype=tf.float64, name="log_nu")


def build(widths=(20, 20, 20, 20)):
    """u of points (x, t): a network that knows nothing of the equation."""
    hidden = [keras.layers.Dense(width, "tanh") for width in widths]
    return keras.Sequential([keras.Input([2]), *hidden, keras.layers.Dense(1)])


def measured(count=500, noise=0.002, seed=0):
    """(places [count, 2], u + noise [count, 1])."""
    rng = np.random.default_rng(seed)
    p = rng.uniform([-1, 0], [1, 1], (count, 2))
    return p, exact(p)[:, None] + noise * rng.normal(size=(count, 1))


def terms(log_nu):
    """The residuals by name, for a variable with the logarithm of the viscosity."""

    def misfit(model, samples):
        places, u = samples
        return model(places) - u

    return {"pde": lambda model, p: pde(model, p, tf.exp(log_nu)), "misfit": misfit}


def main(scale=1.0, seed=0):
    """Find nu with this share of 500 + 200 steps, on 2,000 points or fewer, and return its relative error."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(seed)
    log_nu = start()
    count, adam, after = int(2_000 * scale**0.5), int(500 * scale), int(200 * scale)

    loop = tl.TrainLoop(
        build(),
        [tl.Phase(tl.Adam(5e-3), steps=adam), tl.Phase(tl.LevenbergMarquardt(), steps=after)],
        residuals=terms(log_nu),
        loss_weights=WEIGHTS,
        extra_variables=[log_nu],
        hooks=[tl.Measure(every_steps=max(1, after // 10), nu=lambda model: tf.exp(log_nu))],
    )
    points = tl.Points({"pde": tl.Box([-1, 0], [1, 1], count), "misfit": measured(seed=seed)}, seed=seed)
    result = loop.run(points)

    found = result.history["nu"]
    for step in np.flatnonzero(np.isfinite(found)):
        print(
            f"step {step + 1:6,}  misfit {result.history['term/misfit'][step]:.3e}  nu / truth {found[step] / NU:.4f}"
        )
    error = abs(float(tf.exp(log_nu)) / NU - 1)
    print(f"{result.message}; {result.seconds:.0f} s, relative error of nu {error:.2e}")
    return error


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
