"""Minimising a closure over variables: `minimize` beside SciPy's L-BFGS-B around a compiled function."""

import statistics
import time

import click
import numpy as np

from benchmarks.benchmarking import TIMES, missing, name_missing, output_option, repeats_option
from benchmarks.reporting import publish

_START = (0.0, 0.0, -1.0)


@click.command()
@click.option("--n", type=click.IntRange(min=2), default=50, show_default=True, help="Points of the Gaussian process.")
@repeats_option
@output_option
def closure(n, repeats, output):
    """L-BFGS on the likelihood of a Gaussian process with three parameters, against SciPy's.

    First calls trace and compile, warm ones do not. Both have the same gtol, and take turns.
    """
    left_out = missing({"SciPy": "scipy"})
    solvers = {"trainloop": _trainloop} | ({} if left_out else {"SciPy": _scipy})
    seconds = {(kind, name): [] for kind in ("first", "warm") for name in solvers}
    for _ in range(repeats):
        ready = {}
        for name, make in solvers.items():  # new functions are compiled anew
            ready[name] = make(*_process(n))
            seconds["first", name].append(_timed(ready[name]))
        for _ in range(10):
            for name, solve in ready.items():
                seconds["warm", name].append(_timed(solve))
    last = list(solvers)[-1]
    rows = [
        {"group": f"{kind} calls, n = {n}", "name": name, **_summary(runs, seconds[kind, last])}
        for (kind, name), runs in seconds.items()
    ]
    columns = {**TIMES, "ratio": (f"/ {last}", ".2f")}
    publish(output, "closure", f"Likelihood of a Gaussian process; medians of {repeats}", rows, columns, "median")
    name_missing(left_out)


def _summary(runs, others):
    """The row of a table; the ratio is the median of those of neighbours."""
    ratio = statistics.median(a / b for a, b in zip(runs, others, strict=True))
    return {"median": statistics.median(runs), "low": min(runs), "high": max(runs), "ratio": ratio}


def _timed(solve):
    began = time.perf_counter()
    solve()
    return time.perf_counter() - began


def _process(n):
    """(negative log likelihood, the three variables that it reads)."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.uniform(size=(n, 1))
    y = np.sin(6 * x) + 0.1 * rng.normal(size=(n, 1))
    length, size, noise = variables = [tf.Variable(v, dtype=tf.float64) for v in _START]

    def negative_log_likelihood():
        squares = tf.square(x - x.T) / tf.exp(2 * length)
        K = tf.exp(2 * size - squares / 2) + tf.exp(2 * noise) * tf.eye(n, dtype=tf.float64)
        L = tf.linalg.cholesky(K)
        a = tf.linalg.triangular_solve(L, y)
        return tf.reduce_sum(a**2) / 2 + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(L)))

    return negative_log_likelihood, variables


def _trainloop(f, variables):
    import trainloop as tl

    def solve():
        for variable, value in zip(variables, _START, strict=True):
            variable.assign(value)
        return tl.minimize(f, variables, tl.LBFGS(), gtol=1e-5)

    return solve


def _scipy(f, variables):
    import scipy.optimize
    import tensorflow as tf

    @tf.function(autograph=False)
    def value_and_grad(x):
        for variable, value in zip(variables, tf.unstack(x), strict=True):
            variable.assign(value)
        with tf.GradientTape() as tape:
            y = f()
        return y, tf.stack(tape.gradient(y, variables))

    def evaluate(x):
        y, g = value_and_grad(tf.constant(x))
        return float(y), g.numpy()

    options = {"gtol": 1e-5, "ftol": 0}
    return lambda: scipy.optimize.minimize(evaluate, _START, jac=True, method="L-BFGS-B", options=options)
