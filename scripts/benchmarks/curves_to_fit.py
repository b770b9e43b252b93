"""Curves that a network of one hidden layer is fitted to in float64: nothing but f and g, no derivatives by inputs.

fit1d   sine, exp, Runge's function and sin 8 pi x on [-1, 1], widths 64, 128 and 256, on 2,003 points at once
sinc    sinc(10 x), 20 units, on 20,000 points in batches of 1,000
"""

import functools
import itertools

import numpy as np

from benchmarks.problem import Problem, dense, relative_error

CURVES = {
    "sine": lambda x: np.sin(np.pi * x),
    "exp": np.exp,
    "Runge": lambda x: 1 / (1 + 25 * x**2),
    "sin 8 pi x": lambda x: np.sin(8 * np.pi * x),
}

WIDTHS = (64, 128, 256)


def fit1d(seed, share=1.0, curve="sine", width=64, constructed=False):
    """One curve, one width.

    Args:
        seed: of the weights.
        share: no point is drawn at random, so it changes nothing.
        curve: a key of `CURVES`.
        width: of the hidden layer.
        constructed: whether its units begin where they are needed, see `_spread`.
    """
    import keras

    x = np.linspace(-1, 1, 2_003)[:, None]
    model = dense(1, [width], seed)
    if constructed:
        _spread(model, width, seed)
    return _fit(
        model, x, CURVES[curve](x), seed, 2_000, 1_000, rate=lambda n: keras.optimizers.schedules.CosineDecay(3e-3, n)
    )


def sinc(seed, share=1.0):
    """sin(10 pi x) / (10 pi x) on [-1, 1]."""
    x = np.linspace(-1, 1, 20_000)[:, None]
    return _fit(dense(1, [20], seed), x, np.sinc(10 * x), seed, 2_000, 18_000, batch_size={"fit": 1_000})


def _fit(model, x, y, seed, adam, after, batch_size=None, **options):
    import trainloop as tl

    def residual(model, pair):
        x, y = pair
        return model(x) - y

    points = tl.Points({"fit": (x, y)}, batch_size=batch_size, seed=seed)
    return Problem(model, {"fit": residual}, points, relative_error(model, x, y), adam, after, **options)


def _spread(model, width, seed):
    """Zeros of the hidden units at equal distances, with slopes of the order of the width; small weights behind."""
    rng = np.random.default_rng(seed)
    zeros = np.linspace(-1, 1, width)
    slopes = width / 2 * rng.choice([-1.0, 1.0], size=width)
    last = rng.normal(size=(width, 1)) / width
    model.set_weights([slopes[None], -slopes * zeros, last, np.zeros(1)])


def cells(widths=WIDTHS, constructed=False):
    """{name: function (seed, share) -> Problem} of the cells of fit1d."""
    return {
        f"{curve}, {width}": functools.partial(fit1d, curve=curve, width=width, constructed=constructed)
        for curve, width in itertools.product(CURVES, widths)
    }
