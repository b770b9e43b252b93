"""The Helmholtz equation with a different frequency in each direction: Adam, then SSBroyden.

    u_xx + u_yy + k^2 u = q,  k = 1      -1 <= x, y <= 1, periodic
    u = sin(pi x) sin(4 pi y), from which q follows

The network sees cos and sin of pi x and pi y, so it is periodic by its construction, and the loss has one term.

    python docs/examples/helmholtz.py
    python docs/examples/helmholtz.py 0.1     a tenth of the steps
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import trainloop as tl

A1, A2, K = 1.0, 4.0, 1.0


def build(widths=(30, 30, 30, 30)):
    """u of points (x, y): N(cos pi x, sin pi x, cos pi y, sin pi y)."""
    p = keras.Input([2])
    h = keras.layers.Concatenate()([keras.ops.cos(np.pi * p), keras.ops.sin(np.pi * p)])
    for width in widths:
        h = keras.layers.Dense(width, "tanh", kernel_initializer="glorot_normal")(h)
    return keras.Model(p, keras.layers.Dense(1, kernel_initializer="glorot_normal")(h))


def exact(p):
    """u [N], of a tensor or an array p [N, 2]."""
    return tf.sin(A1 * np.pi * p[:, 0]) * tf.sin(A2 * np.pi * p[:, 1])


def pde(model, p):
    """u_xx + u_yy + k^2 u - q at points p [N, 2]."""
    u, u_xx, u_yy = tl.derivatives(model, p, [(0, 0), (1, 1)])
    q = (K**2 - np.pi**2 * (A1**2 + A2**2)) * exact(p)
    return (u_xx + u_yy + K**2 * u)[:, 0] - q


def grid(n=101):
    """Points [n^2, 2] of the whole domain."""
    return np.stack(np.meshgrid(*[np.linspace(-1, 1, n)] * 2), axis=-1).reshape(-1, 2)


def main(scale=1.0, seed=0):
    """Solve it with this share of 1,000 + 10,000 steps, on 5,000 points or fewer, and return the relative L2 error."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(seed)
    model, p = build(), grid()
    u = exact(p).numpy()
    count, adam, after = int(5_000 * scale**0.5), int(1_000 * scale), int(10_000 * scale)

    rate = keras.optimizers.schedules.ExponentialDecay(5e-3, 1_000, 0.98)
    phases = [tl.Phase(tl.Adam(rate), steps=adam), tl.Phase(tl.SSBroyden(), steps=after)]
    hooks = [
        tl.Resample("pde", every_steps=max(1, after // 50), candidates=5 * count, c=0),
        tl.Measure(every_steps=max(1, after // 10), rel_l2=lambda model: relative(model, p, u)),
    ]
    loop = tl.TrainLoop(model, phases, residuals={"pde": pde}, hooks=hooks)
    result = loop.run(tl.Points({"pde": tl.Box([-1, -1], [1, 1], count)}, seed=seed))

    columns = [result.history[name] for name in ("step", "loss", "rel_l2")]
    for step, loss, error in zip(*columns, strict=True):
        if np.isfinite(error):
            print(f"step {step:6,}  loss {loss:.2e}  relative L2 {error:.2e}")
    error = relative(model, p, u)
    print(f"{result.message}; {result.seconds:.0f} s, relative L2 error {error:.2e}")
    return error


def relative(model, p, u):
    """|u(p) - u| / |u|."""
    return float(np.linalg.norm(np.asarray(model(p))[:, 0] - u) / np.linalg.norm(u))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
