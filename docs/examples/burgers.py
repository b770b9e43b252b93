"""Burgers' equation with a thin inner layer: Adam, then SSBroyden, on points that follow the residual.

    u_t + u u_x = nu u_xx,  nu = 0.01 / pi      -1 <= x <= 1, 0 <= t <= 1
    u = -sin(pi x) at t = 0, periodic in x

Near t = 1/pi the solution turns into a layer at x = 0 of a width of about nu. The network gets the initial and the
periodic condition by its construction, so the loss has one term. The error is measured against the exact solution.

    python docs/examples/burgers.py
    python docs/examples/burgers.py 0.1     a tenth of the steps
"""

import sys

import keras
import numpy as np

import trainloop as tl

NU = 0.01 / np.pi


def build(widths=(20, 20, 20)):
    """u of points (x, t): -sin(pi x) + t N(t, cos pi x, sin pi x)."""
    p = keras.Input([2])
    x, t = p[:, :1], p[:, 1:]
    h = keras.layers.Concatenate()([t, keras.ops.cos(np.pi * x), keras.ops.sin(np.pi * x)])
    for width in widths:
        h = keras.layers.Dense(width, "tanh")(h)
    return keras.Model(p, t * keras.layers.Dense(1)(h) - keras.ops.sin(np.pi * x))


def pde(model, p, nu=NU):
    """u_t + u u_x - nu u_xx at points p [N, 2]."""
    u, u_x, u_t, u_xx = tl.derivatives(model, p, [(0,), (1,), (0, 0)])
    return (u_t + u * u_x - nu * u_xx)[:, 0]


def exact(p, nodes=100):
    """u [N] after Cole and Hopf: a quotient of two integrals over the line, each by Gauss-Hermite quadrature.

    With u = -2 nu phi_x / phi the equation becomes that of heat for phi, whose solution is an integral of its initial
    values against a Gaussian.
    """
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    y = p[:, :1] - np.sqrt(4 * NU * p[:, 1:]) * z
    phi = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * NU))
    return -np.sum(np.sin(np.pi * y) * phi, axis=1) / np.sum(phi, axis=1)


def grid(nx=201, nt=51):
    """Points [nx nt, 2] of the whole domain."""
    x, t = np.meshgrid(np.linspace(-1, 1, nx), np.linspace(0, 1, nt))
    return np.stack([x.ravel(), t.ravel()], axis=1)


def main(scale=1.0, seed=2):
    """Solve it with this share of 2,000 + 8,000 steps, on 10,000 points or fewer, and return the relative L2 error."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(seed)
    model, p = build(), grid()
    u = exact(p)
    count, adam, after = int(10_000 * scale**0.5), int(2_000 * scale), int(8_000 * scale)

    rate = keras.optimizers.schedules.ExponentialDecay(5e-3, 1_000, 0.98)
    phases = [tl.Phase(tl.Adam(rate), steps=adam), tl.Phase(tl.SSBroyden(), steps=after)]
    hooks = [
        tl.Resample("pde", every_steps=max(1, after // 20), candidates=5 * count),
        tl.Measure(every_steps=max(1, after // 8), rel_l2=lambda model: relative(model, p, u)),
    ]
    loop = tl.TrainLoop(model, phases, residuals={"pde": pde}, hooks=hooks)
    result = loop.run(tl.Points({"pde": tl.Box([-1, 0], [1, 1], count)}, seed=seed))

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
