"""Limited-memory minimisers on one large function, each in a process of its own so that its memory can be told apart.

As a program this file is one of them: it prints one line of JSON, seconds and evaluations per iteration and the extra
memory. Extra is the growth of the process's largest resident size over that after

    - evaluating the large function and its gradient a few times, which needs memory for any optimizer, and
    - minimising a small one, which loads and compiles the code.

The function is the extended Rosenbrock function from its standard starting point.
"""

import json
import resource
import statistics
import sys
import time

import click
import numpy as np

from benchmarks.benchmarking import missing, name_missing, output_option, repeats_option, run_program
from benchmarks.reporting import publish

# Length of the history, m.
PAIRS = 10

_SMALL = 20_000

# Each in a process of its own, by the module it needs.
MINIMIZERS = {
    "trainloop": "trainloop",
    "scipy": "scipy",
    "tfp": "tensorflow_probability",
    "torch": "torch",
}


@click.command()
@click.option("--n", type=click.IntRange(min=100_000), default=2_000_000, show_default=True, help="Unknowns, even.")
@click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float64", show_default=True)
@click.option("--iterations", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@repeats_option
@output_option
def minimize(n, dtype, iterations, repeats, output):
    """L-BFGS with ten pairs on the extended Rosenbrock function, against SciPy, TensorFlow Probability and PyTorch.

    Those that are not installed are named and left out. SciPy works in float64 whatever the dtype.
    """
    left_out = missing(MINIMIZERS)
    reports = {name: [] for name in MINIMIZERS if name not in left_out}
    for _ in range(repeats):
        for name in reports:
            timed = run_minimizer(name, n, dtype, iterations, {})
            # What is freed goes back to the system at once, so that the peak is what was in use. That costs time.
            measured = run_minimizer(name, n, dtype, iterations, {"MALLOC_MMAP_THRESHOLD_": str(2**20)})
            reports[name].append(timed | {"extra": measured["extra"]})
    rows = [
        {
            "group": f"n = {n:,}, {dtype}, m = 10",
            "name": name,
            "milliseconds": 1e3 * statistics.median(run["seconds"] for run in runs),
            "evaluations": statistics.median(run["evaluations"] for run in runs),
            "extra": statistics.median(run["extra"] for run in runs) / 1e6,
            "relative": statistics.median(run["extra"] / run["history"] for run in runs),
        }
        for name, runs in reports.items()
    ]
    columns = {
        "milliseconds": ("ms/iteration", ".0f"),
        "evaluations": ("evaluations", ".2f"),
        "extra": ("extra MB", ".0f"),
        "relative": ("extra/history", ".2f"),
    }
    title = f"L-BFGS on the extended Rosenbrock function; medians of {repeats}"
    publish(output, "minimize", title, rows, columns, "milliseconds")
    name_missing(left_out)


def run_minimizer(name, n, dtype, iterations, environment):
    """The report of one process."""
    if name == "tfp":
        environment = {**environment, "TF_USE_LEGACY_KERAS": "1"}
    return run_program("minimize", name, n, dtype, iterations, **environment)


def main(library, n, dtype, iterations):
    evaluate, solve = {"trainloop": _trainloop, "scipy": _scipy, "tfp": _tfp, "torch": _torch}[library]()
    x0 = np.tile(np.array([-1.2, 1.0], dtype), n // 2)
    solve(x0[:_SMALL], 3)
    for _ in range(5):
        evaluate(x0)
    baseline = _peak()
    short, long = (_timed(solve, x0, k) for k in (PAIRS + 2, PAIRS + 2 + iterations))
    # The difference leaves out tracing and compiling, and the first steps with a history that is not full.
    steps, evaluations, seconds = (b - a for a, b in zip(short[:3], long[:3], strict=True))
    report = {"f": long[3], "iterations": steps, "evaluations": evaluations / steps, "seconds": seconds / steps}
    print(json.dumps(report | {"extra": _peak() - baseline, "history": 2 * PAIRS * x0.nbytes}))


def _timed(solve, x0, iterations):
    began = time.perf_counter()
    done, evaluations, f = solve(x0, iterations)
    return done, evaluations, time.perf_counter() - began, f


def _peak():
    """Bytes of the largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tensorflow():
    """(f as a function of a tensor, a compiled function for f and g)."""
    import tensorflow as tf

    def rosenbrock(x):
        pairs = tf.reshape(x, [-1, 2])
        a, b = pairs[:, 0], pairs[:, 1]
        return tf.reduce_sum(100 * tf.square(b - a * a) + tf.square(1 - a))

    @tf.function(autograph=False)
    def value_and_grad(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            f = rosenbrock(x)
        return f, tape.gradient(f, x)

    return rosenbrock, value_and_grad


def _trainloop():
    import tensorflow as tf

    import trainloop as tl

    rosenbrock, value_and_grad = _tensorflow()

    def solve(x0, iterations):
        result = tl.minimize(rosenbrock, x0, tl.LBFGS(m=PAIRS), max_steps=iterations, gtol=0)
        return result.steps, result.evaluations["f"], result.f

    return lambda x0: value_and_grad(tf.constant(x0))[1].numpy(), solve


def _scipy():
    import scipy.optimize
    import tensorflow as tf

    _, value_and_grad = _tensorflow()

    def evaluate(x):
        f, g = value_and_grad(tf.constant(x))
        return float(f), np.asarray(g, np.float64)

    def solve(x0, iterations):
        options = {"maxcor": PAIRS, "maxiter": iterations, "gtol": 0, "ftol": 0}
        found = scipy.optimize.minimize(evaluate, x0, jac=True, method="L-BFGS-B", options=options)
        return found.nit, found.nfev, float(found.fun)

    return evaluate, solve


def _tfp():
    import tensorflow as tf
    import tensorflow_probability as tfp

    _, value_and_grad = _tensorflow()

    @tf.function(autograph=False)
    def minimize(x0, iterations):
        return tfp.optimizer.lbfgs_minimize(
            value_and_grad, x0, num_correction_pairs=PAIRS, tolerance=0, max_iterations=iterations
        )

    def solve(x0, iterations):
        found = minimize(tf.constant(x0), tf.constant(iterations))
        return int(found.num_iterations), int(found.num_objective_evaluations), float(found.objective_value)

    return lambda x0: value_and_grad(tf.constant(x0))[1].numpy(), solve


def _torch():
    import torch

    def rosenbrock(x):
        a, b = x[0::2], x[1::2]
        return (100 * (b - a * a) ** 2 + (1 - a) ** 2).sum()

    def evaluate(x0):
        x = torch.tensor(x0, requires_grad=True)
        rosenbrock(x).backward()

    def solve(x0, iterations):
        x, values = torch.tensor(x0, requires_grad=True), []
        tolerances = {"tolerance_grad": 0, "tolerance_change": 0}
        optimizer = torch.optim.LBFGS(
            [x], max_iter=iterations, history_size=PAIRS, line_search_fn="strong_wolfe", **tolerances
        )

        def closure():
            optimizer.zero_grad()
            f = rosenbrock(x)
            f.backward()
            values.append(float(f.detach()))
            return f

        optimizer.step(closure)
        return optimizer.state[x]["n_iter"], len(values), float(rosenbrock(x.detach()))

    return evaluate, solve


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
