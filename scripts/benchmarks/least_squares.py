"""Least-squares optimizers: what a Jacobian costs, and how far a differential equation is solved in a given time.

rows        the Jacobian of the Burgers residual [2000, 1341], J'J and a step of LevenbergMarquardt, in evaluations of
            f and its gradient; and the memory of J'J of 200,000 residuals and 1,000 weights beyond J'J itself
poisson     -Laplace u = f on the unit square, a network of 129 weights, in float64: the relative L2 error after so
            many seconds, tracing excluded, for several seeds
"""

import resource
import time

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option, run_program
from benchmarks.equations import example, poisson2d
from benchmarks.problem import dense
from benchmarks.reporting import alternate, compared, publish
from trainloop.cli.common import import_tensorflow


@click.command("least-squares")
@click.option("--seconds", default=10.0, show_default=True, help="For each run of poisson.")
@click.option("--seeds", default=10, show_default=True, help="Runs of poisson.")
@repeats_option
@output_option
def least_squares(seconds, seeds, repeats, output):
    """Jacobians of residuals, and a differential equation in a given time."""
    import_tensorflow()
    import keras

    keras.config.set_floatx("float64")
    rows = compared("Burgers, J [2000, 1341]", alternate(burgers_jobs(), repeats), "f and gradient", scale=1e3)
    memory = run_program("least_squares", "memory")
    rows.append(
        {"group": "J'J, m = 200,000, n = 1,000", "name": "trainloop, peak beyond J'J (MB)", "median": memory["mb"]}
    )
    for name in ("LevenbergMarquardt", "NaturalGradient"):
        errors = sorted(poisson_error(name, seed, seconds) for seed in range(seeds))
        group = f"poisson, relative L2 after {seconds:g} s, {seeds} seeds"
        found = {"median": float(np.median(errors)), "low": errors[0], "high": errors[-1]}
        rows.append({"group": group, "name": f"trainloop {name}", **found})
    columns = {"median": ("median", ".3g"), "low": ("lowest", ".3g"), "high": ("highest", ".3g")}
    publish(output, "least_squares", "Milliseconds, megabytes, relative errors", rows, columns, "median")


def burgers_jobs(points=2000, widths=(20, 20, 20, 20)):
    """Functions that compute one of each."""
    import tensorflow as tf

    import trainloop as tl

    p = tf.constant(np.random.default_rng(0).uniform(-1, 1, (points, 2)))
    objective = tl.ModelObjective(dense(2, widths, seed=0), residuals=example("burgers").pde, batch=p)
    x = objective.vector.read()
    optimizer = tl.LevenbergMarquardt(solver="cholesky")
    state = optimizer.init_state(x)

    def compiled(function):
        traced = tf.function(function, autograph=False)
        return lambda: np.asarray(tf.nest.flatten(traced())[0]).sum()

    def step():
        return optimizer.update(x, *objective.value_and_grad(x), state, objective)[0]

    return {
        "f and gradient": compiled(lambda: objective.value_and_grad(x)[1]),
        "trainloop J": compiled(lambda: objective.jacobian(x)),
        "trainloop J'J": compiled(lambda: objective.ggn(x)),
        "trainloop LevenbergMarquardt, a step": compiled(step),
    }


def poisson_error(optimizer, seed, seconds):
    """The relative L2 error after so many seconds of steps."""
    import trainloop as tl

    problem = poisson2d(seed)
    loop = tl.TrainLoop(
        problem.model, getattr(tl, optimizer)(), residuals=problem.residuals, loss_weights=problem.weights
    )
    loop.run(problem.points, steps=1)  # compiles
    began = time.perf_counter()
    while time.perf_counter() - began < seconds and loop.run(problem.points, steps=20).status.name == "FINISHED":
        pass
    return problem.error()


def _memory():
    """{"mb": peak of the process beyond what it had before and J'J}."""
    import tensorflow as tf

    import trainloop as tl

    model = dense(2, [249], seed=0)  # 997 weights
    p = tf.constant(np.random.default_rng(0).uniform(size=(200_000, 2)))
    objective = tl.ModelObjective(model, residuals=lambda model, p: model(p), batch=p)
    x = objective.vector.read()
    gram = tf.function(lambda: objective.ggn(x), autograph=False).get_concrete_function()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = gram().shape[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mb": (peak - before) / 1024 - size * size * 8 / 2**20}


if __name__ == "__main__":
    import json

    import keras

    keras.config.set_floatx("float64")
    print(json.dumps(_memory()))
