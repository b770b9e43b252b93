"""Differential equations with known solutions, as sums of squares over a network in float64.

Each function takes a seed and the share of its sampled points that a run has, and returns a `Problem`. Those that
docs/examples solves are taken from there, with the points and steps that are published for them.
"""

import functools
import importlib
import pathlib
import sys

import numpy as np

from benchmarks.problem import Problem, dense, relative_error

_EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "examples"


def example(name):
    """A program of docs/examples as a module."""
    if str(_EXAMPLES) not in sys.path:
        sys.path.append(str(_EXAMPLES))  # one of them imports another
    return importlib.import_module(name)


def poisson2d(seed, share=1.0):
    """-(u_xx + u_yy) = f on the unit square, zero on its boundary; u = sin(pi x) sin(pi y)."""
    import tensorflow as tf

    import trainloop as tl

    def pde(model, p):
        _, u_xx, u_yy = tl.derivatives(model, p, [(0, 0), (1, 1)])
        return (u_xx + u_yy)[:, 0] + 2 * np.pi**2 * _product(tf.sin(np.pi * p))

    model, square = dense(2, [32], seed, scale=0.1), unit_square()
    points = tl.Points({"pde": square["pde"], "boundary": np.concatenate(square["sides"])}, seed=seed)
    p = _uniform([0, 0], [1, 1], 5_000)
    error = relative_error(model, p, np.prod(np.sin(np.pi * p), axis=1))
    residuals = {"pde": pde, "boundary": lambda model, p: model(p)}
    return Problem(model, residuals, points, error, adam=0, after=1_000, weights={"boundary": 4.0})


def heat1d(seed, share=1.0):
    """u_t = u_xx / 4 on the unit square; u = exp(-pi^2 t / 4) sin(pi x)."""
    import tensorflow as tf

    import trainloop as tl

    def exact(p, exp=tf.exp, sin=tf.sin):
        return exp(-(np.pi**2) / 4 * p[:, 1]) * sin(np.pi * p[:, 0])

    def pde(model, p):
        _, u_t, u_xx = tl.derivatives(model, p, [(1,), (0, 0)])
        return u_t - u_xx / 4

    model, square = dense(2, [64], seed, scale=0.1), unit_square()
    bottom, right, _, left = square["sides"]  # t = 0, x = 1, x = 0
    points = tl.Points({"pde": square["pde"], "given": np.concatenate([bottom, right, left])}, seed=seed)
    p = _uniform([0, 0], [1, 1], 5_000)
    residuals = {"pde": pde, "given": lambda model, p: model(p)[:, 0] - exact(p)}
    error = relative_error(model, p, exact(p, np.exp, np.sin))
    return Problem(model, residuals, points, error, adam=0, after=1_000, weights={"given": 4.0})


def poisson5d(seed, share=1.0):
    """-Laplace u = f on the unit cube in five dimensions; u = sum of sin(pi x_i). Points are drawn in every step."""
    import tensorflow as tf

    import trainloop as tl

    def exact(p):
        return tf.reduce_sum(tf.sin(np.pi * p), axis=1)

    def pde(model, p):
        _, *second = tl.derivatives(model, p, [(j, j) for j in range(5)])
        return tf.add_n(second)[:, 0] + np.pi**2 * exact(p)

    model = dense(5, [64], seed)
    inside, outside = _count(4_000, share), _count(500, share)
    faces = _on_faces(10 * outside, 5, seed)
    points = tl.Points(
        {"pde": tl.Box([0] * 5, [1] * 5, 10 * inside), "boundary": faces},
        batch_size={"pde": inside, "boundary": outside},
        seed=seed,
    )
    p = _uniform([0] * 5, [1] * 5, 5_000)
    residuals = {"pde": pde, "boundary": lambda model, p: model(p)[:, 0] - exact(p)}
    return Problem(model, residuals, points, relative_error(model, p, exact(p)), adam=0, after=5_000)


def poisson_exp(seed, share=1.0, k=4):
    """u_xx + u_yy - exp(u) = f on the unit square; u = 1 + sin(k pi x) cos(k pi y), the boundary by construction.

    Its loss falls by ten powers of ten. Those who posed it (Urban, Stefanou and Pons) minimise its logarithm.
    """
    import keras
    import tensorflow as tf

    import trainloop as tl

    def wave(p, sin=tf.sin, cos=tf.cos):
        return sin(k * np.pi * p[:, 0]) * cos(k * np.pi * p[:, 1])

    def pde(model, p):
        u, u_xx, u_yy = tl.derivatives(model, p, [(0, 0), (1, 1)])
        f = -2 * (k * np.pi) ** 2 * wave(p) - tf.exp(1 + wave(p))
        return (u_xx + u_yy - tf.exp(u))[:, 0] - f

    keras.utils.set_random_seed(seed)
    p = keras.Input([2])
    x, y = p[:, :1], p[:, 1:]
    h = p
    for _ in range(2):
        h = keras.layers.Dense(30, "tanh")(h)
    inside = x * y * (1 - x) * (1 - y) * keras.layers.Dense(1)(h)
    edge = 1 + (1 - y * (1 - np.cos(k * np.pi))) * keras.ops.sin(k * np.pi * x)
    model = keras.Model(p, edge + inside)

    points = tl.Points({"pde": tl.Box([0, 0], [1, 1], _count(8_000, share))}, seed=seed)
    test = _uniform([0, 0], [1, 1], 5_000)
    error = relative_error(model, test, 1 + wave(test, np.sin, np.cos))
    return Problem(model, {"pde": pde}, points, error, adam=10_000, after=20_000, logarithm=True)


def burgers(seed, share=1.0):
    """u_t + u u_x = 0.01 / pi u_xx from -sin(pi x), with points that follow the residual."""
    program = example("burgers")
    solution = program.grid(), program.exact(program.grid())
    return _example(program, seed, ([-1, 0], _count(10_000, share)), solution, (5_000, 10_000), 500)


def helmholtz(seed, share=1.0):
    """u_xx + u_yy + u = q on a square of two periods; u = sin(pi x) sin(4 pi y)."""
    program = example("helmholtz")
    solution = program.grid(), program.exact(program.grid())
    return _example(program, seed, ([-1, -1], _count(15_000, share)), solution, (1_000, 50_000), 200, c=0)


def allen_cahn(seed, share=1.0):
    """u_t = 1e-4 u_xx + 5 (u - u^3), periodic, from x^2 cos(pi x), against a spectral method."""
    program = example("allen_cahn")
    return _example(program, seed, ([-1, 0], _count(15_000, share)), program.spectral(), (5_000, 20_000), 500)


def inverse_burgers(seed, share=1.0):
    """The viscosity of Burgers' equation from 500 noisy samples; its relative error counts."""
    import keras
    import tensorflow as tf

    import trainloop as tl

    program = example("inverse_burgers")
    keras.utils.set_random_seed(seed)
    model, log_nu = program.build(), program.start()
    box = tl.Box([-1, 0], [1, 1], _count(2_000, share))
    points = tl.Points({"pde": box, "misfit": program.measured(seed=seed)}, seed=seed)
    return Problem(
        model,
        program.terms(log_nu),
        points,
        lambda: abs(float(tf.exp(log_nu)) / program.NU - 1),
        adam=5_000,
        after=10_000,
        weights=program.WEIGHTS,
        extra=(log_nu,),
    )


def _example(program, seed, sampled, solution, steps, every, c=1):
    """A program of docs/examples with one term as a `Problem`."""
    import keras

    import trainloop as tl

    keras.utils.set_random_seed(seed)
    model, (low, count) = program.build(), sampled
    points = tl.Points({"pde": tl.Box(low, [1, 1], count)}, seed=seed)
    resample = {"term": "pde", "every_steps": every, "candidates": 5 * count, "c": c}
    error = relative_error(model, *solution)
    return Problem(model, {"pde": program.pde}, points, error, *steps, resample=resample)


@functools.cache
def unit_square():
    """A grid of 30 x 30: its interior [784, 2], and its four sides [29, 2] each, bottom, right, top, left."""
    inner, side = np.arange(1, 29) / 29, np.arange(29) / 29
    low, high = np.zeros(29), np.ones(29)
    sides = [np.stack(e, 1) for e in ((side, low), (high, side), (1 - side, high), (low, 1 - side))]
    return {"pde": np.stack(np.meshgrid(inner, inner), -1).reshape(-1, 2), "sides": sides}


def _on_faces(count, d, seed):
    """Points [count, d] that are uniform on the boundary of the unit cube."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=(count, d))
    p[np.arange(count), rng.integers(d, size=count)] = rng.integers(2, size=count)
    return p


def _uniform(low, high, count):
    """Points to measure an error at, the same for all seeds."""
    return np.random.default_rng(1).uniform(low, high, (count, len(low)))


def _count(full, share):
    return max(1, int(full * share))


def _product(values):
    return values[:, 0] * values[:, 1]


EQUATIONS = {
    "poisson2d": poisson2d,
    "heat1d": heat1d,
    "poisson5d": poisson5d,
    "burgers": burgers,
    "poisson_exp": poisson_exp,
    "helmholtz": helmholtz,
    "allen_cahn": allen_cahn,
    "inverse_burgers": inverse_burgers,
}
