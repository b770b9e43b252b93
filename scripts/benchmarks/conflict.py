"""Terms in conflict: Burgers' equation with three terms, by Adam alone and with combiners of the terms' gradients.

    u_t + u u_x = 0.01 / pi u_xx,  u = -sin(pi x) at t = 0,  u = 0 at x = -1 and 1

Nothing is built into the network, so the equation, the initial values and the values at the boundary are terms of the
loss. All optimizers have the same network, points and learning rate, and take their blocks of steps in turn.
"""

import time

import click
import numpy as np

from benchmarks.benchmarking import output_option
from benchmarks.equations import example
from benchmarks.problem import dense, relative_error
from benchmarks.reporting import publish
from trainloop.cli.common import import_tensorflow

_BLOCK = 100


@click.command("conflict")
@click.option("--seconds", default=60.0, show_default=True, help="Of each method.")
@click.option("--rate", default=1e-3, show_default=True, help="Learning rate of Adam.")
@click.option("--combiner", multiple=True, default=("config", "upgrad"), show_default=True, help="Again for more.")
@click.option("--seed", default=0, show_default=True)
@output_option
def conflict(seconds, rate, combiner, seed, output):
    """Burgers with three terms: relative L2 errors over seconds, by Adam and by combiners around it."""
    import_tensorflow()
    import keras

    import trainloop as tl

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    methods = {"Adam": lambda: tl.Adam(rate)}
    methods |= {f"trainloop Combine, {name}": lambda name=name: tl.Combine(tl.Adam(rate), name) for name in combiner}
    runs = {name: _Run(make(), seed) for name, make in methods.items()}
    while any(run.seconds < seconds for run in runs.values()):
        for run in runs.values():
            if run.seconds < seconds:
                run.block()
    rows = [
        {"group": f"after {share:.0%} of {seconds:g} s", "name": name, **run.at(share * seconds)}
        for share in (0.25, 0.5, 1.0)
        for name, run in runs.items()
    ]
    columns = {"error": ("relative L2", ".2e"), "best": ("best so far", ".2e"), "steps": ("steps", ",.0f")}
    columns |= {"ms": ("ms a step", ".2f"), "cosine": ("cosine", ".2f")}
    publish(output, "conflict", "Burgers with three terms", rows, columns, "error")


class _Run:
    """One optimizer at work; its course: (seconds, steps, error, median of the smallest cosine in the block)."""

    def __init__(self, optimizer, seed):
        import trainloop as tl

        program, p = example("burgers"), np.random.default_rng(seed)
        points = {"pde": p.uniform([-1, 0], [1, 1], (2_000, 2)), "ic": p.uniform([-1, 0], [1, 0], (200, 2))}
        points["bc"] = np.stack([p.choice([-1.0, 1.0], 200), p.uniform(0, 1, 200)], 1)
        initial = {"pde": program.pde, "ic": _initial, "bc": lambda model, p: model(p)[:, 0]}
        model = dense(2, [20, 20, 20], seed=seed)
        self._loop, self._points = tl.TrainLoop(model, optimizer, residuals=initial), tl.Points(points, seed=seed)
        self._error = relative_error(model, program.grid(), program.exact(program.grid()))
        self._loop.run(self._points, steps=1, verbose=0)  # compiles
        self.seconds, self._steps, self._course = 0.0, 0, []

    def block(self):
        began = time.perf_counter()
        history = self._loop.run(self._points, steps=_BLOCK, verbose=0).history
        self.seconds += time.perf_counter() - began
        self._steps += _BLOCK
        cosine = float(np.median(history["cosine/smallest"])) if "cosine/smallest" in history else None
        self._course.append((self.seconds, self._steps, self._error(), cosine))

    def at(self, seconds):
        """What is known at the end of the first block that ends after so many seconds."""
        course = self._course[: 1 + next(i for i, (s, *_) in enumerate(self._course) if s >= seconds)]
        spent, steps, error, cosine = course[-1]
        best = min(e for _, _, e, _ in course)
        return {"error": error, "best": best, "steps": steps, "ms": 1e3 * spent / steps, "cosine": cosine}


def _initial(model, p):
    import tensorflow as tf

    return model(p)[:, 0] + tf.sin(np.pi * p[:, 0])
