"""Networks that solve differential equations or fit curves: how small the error gets, by which optimizer, in what time.

Steps are those that were published for a problem, times a share: a tenth unless told otherwise. Optimizers that take a
Jacobian have the same limits, of steps and of seconds.
"""

import dataclasses

import click

from benchmarks import work_precision
from benchmarks.benchmarking import output_option
from benchmarks.curves_to_fit import WIDTHS, cells, sinc
from benchmarks.equations import EQUATIONS
from trainloop.cli.common import import_tensorflow

# What --quick runs: one optimizer of each kind, and the smallest networks.
_QUICK_METHODS = ("SSBroyden", "LevenbergMarquardt", "SciPy L-BFGS-B")


@dataclasses.dataclass
class Effort:
    """How much a command does.

    Args:
        steps: share of the steps of a full budget.
        points: share of the points that are drawn at random.
        seconds: of a run at most, after Adam.
        methods: names; empty for all.
        widths: of the networks of fit1d.
        jit: compile with XLA.
    """

    steps: float = 0.1
    points: float = 1.0
    seconds: float = 120.0
    methods: tuple[str, ...] = ()
    widths: tuple[int, ...] = WIDTHS
    jit: bool = False


def _options(problems):
    """A decorator that gives a command the options of both; these are the names of its problems."""
    options = (
        click.option("--problem", type=click.Choice(problems), multiple=True, help="Again for more; all without."),
        click.option("--method", type=click.Choice(work_precision.METHODS), multiple=True, help="In the same way."),
        click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each."),
        click.option("--seconds", type=float, help="Of a run after Adam.  [default: 120; quick: 2; full: no limit]"),
        click.option("--jit", is_flag=True, help="Compile with XLA, for other libraries too."),
        click.option("--quick", "size", flag_value="quick", help="A hundredth of the steps, a tenth of the points."),
        click.option("--full", "size", flag_value="full", help="All steps, which takes hours."),
        output_option,
    )

    def add(command):
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command("pinn")
@_options(list(EQUATIONS))
def pinn(problem, method, seeds, seconds, jit, size, output):
    """Differential equations, and the viscosity of one: relative errors over seconds and evaluations."""
    effort = _prepared(size, method, seconds, jit)
    makers = [(name, "", EQUATIONS[name]) for name in problem or EQUATIONS]
    _run(makers, effort, seeds, output, "pinn", "Differential equations: relative L2 errors, of nu for inverse_burgers")


@click.command("fit")
@click.option("--constructed", is_flag=True, help="Hidden units of fit1d begin where they are needed.")
@_options(["fit1d", "sinc"])
def fit(problem, method, seeds, seconds, jit, size, output, constructed):
    """Curves: the median over the cells of fit1d, four curves and three widths, and sinc in batches."""
    effort, makers = _prepared(size, method, seconds, jit), []
    if "fit1d" in (problem or ["fit1d"]):
        makers += [("fit1d", cell, make) for cell, make in cells(effort.widths, constructed).items()]
    if "sinc" in (problem or ["sinc"]):
        makers.append(("sinc", "", sinc))
    start = "constructed" if constructed else "Glorot's"
    _run(makers, effort, seeds, output, "fit", f"Curves: relative L2 errors from {start} start")


def _prepared(size, methods, seconds, jit):
    """The `Effort` of a command, after TensorFlow is loaded and set to float64."""
    effort = {
        None: Effort(methods=methods),
        "quick": Effort(0.01, 0.1, 2.0, methods or _QUICK_METHODS, WIDTHS[:1]),
        "full": Effort(steps=1.0, seconds=float("inf"), methods=methods),
    }[size]
    import_tensorflow()
    import keras

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    return dataclasses.replace(effort, seconds=seconds or effort.seconds, jit=jit)


def _run(makers, effort, seeds, output, name, title):
    """Run all optimizers on all problems, in turn, and publish what they found.

    Args:
        makers: list of (problem, cell, function (seed, share of points) -> `Problem`).
        effort: an `Effort`.
        seeds: how many runs of each.
        output, name, title: see `work_precision.publish`.
    """
    methods, records = work_precision.available(effort.methods), []
    for problem, cell, make in makers:
        for seed in range(seeds):
            for method in methods:
                begun = dataclasses.replace(make(seed, effort.points), jit=effort.jit)
                found = work_precision.record(method, begun, effort.steps, effort.seconds)
                records.append({"problem": problem, "cell": cell, "method": method, "seed": seed, **found})
                where = ", ".join(filter(None, (problem, cell, f"seed {seed}", method)))
                click.echo(f"{where}: {found['error']:.2e} in {found['seconds']:.1f} s; {found['ended']}")
    work_precision.publish(output, name, title, records)
