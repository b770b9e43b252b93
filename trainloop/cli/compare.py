"""Compare optimizers: who gets how far, in which time, at which cost.

    trainloop compare testgd:rad=3000 adam:learning_rate=0.003 shorr
    trainloop compare --dataset mnist --model mlp --seeds 5 adam lbfgs:--batch-size=full,--epochs=200
    trainloop compare adam adam:--steps=300,--then=lbfgs:m=20 --batch-size full --steps 600
    trainloop compare problems lbfgs bfgs newtoncg
    trainloop compare report comparisons/mine

An optimizer is what `trainloop train` takes after --optimizer, with arguments of its constructor and options of its own
(`lbfgs:m=20,--batch-size=full`) behind a colon; --then= is followed by the specification of the next phase.
The same command with the same --out continues what was interrupted.
`trainloop compare networks --help` shows seeds, epochs, targets and all other options.
"""

import contextlib
import difflib
import pathlib
import sys

import click

from trainloop.cli.common import COUNT, as_help, echo, import_tensorflow, in_one_line
from trainloop.cli.defaults import fitting
from trainloop.cli.train import train

# Of every run, by default.
DEFAULT_EPOCHS = 10

# The program that does one run, in a process of its own.
TRAIN = (sys.executable, "-m", "trainloop", "train")


# Options of `trainloop train` that are those of all runs, and mean the same.
OF_ALL_RUNS = {"dataset", "model", "loss", "residuals", "loss_weights", "dtype", "batch_size"}
OF_ALL_RUNS |= {"max_seconds", "max_evaluations"}


class MethodsUnlessCommand(click.Group):
    """Without the name of a command, `networks` is meant."""

    def parse_args(self, ctx, args):
        if args and args[0] not in (*self.commands, "--help"):
            near = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.8)
            if near:
                raise click.UsageError(f"{args[0]!r} is no optimizer and no command; did you mean {near[0]!r}?")
            args = ["networks", *args]
        return super().parse_args(ctx, args)


@click.group(cls=MethodsUnlessCommand, help=as_help(__doc__))
def compare():
    """See the top of this file."""


@compare.command(params=[param for param in train.params if param.name in OF_ALL_RUNS])
@click.argument("methods", nargs=-1, required=True, metavar="METHOD[:KEY=VALUE,...] ...")
@click.option("--epochs", **COUNT, help=f"Of every run.  [default: {DEFAULT_EPOCHS}, unless --steps]")
@click.option("--steps", **COUNT, help="Of every run; needed for points of residuals.")
@click.option("--seeds", **COUNT, default=3, show_default=True, help="Runs per method.")
@click.option("--target", metavar="NAME=VALUE", help="Report time and work until, as in val_accuracy=0.95.")
@click.option("--jobs", **COUNT, default=1, show_default=True, help="Runs at a time.")
@click.option("--out", help="Folder.  [default: comparisons/<time>-<model>-<dataset>]")
def networks(methods, seeds, target, jobs, out, **common):
    """Train one network with several optimizers, each with several seeds."""
    import_tensorflow()
    check_installed()
    from trainloop.comparison import folder, score
    from trainloop.runs.directory import command_in_folder, fresh_path

    with usage_errors():
        target = target and score.parse_target(target)
        common = with_defaults(common)
        arguments = as_arguments(common)
        check(methods, arguments)
        out = out or fresh_path(common["model"], common["dataset"], root="comparisons")
        lock = folder.lock(out)
    with lock:
        with usage_errors():
            comparison = folder.begin(out, [*arguments, "--layer-norms"], methods, range(seeds))
        interrupted = do_runs(comparison, jobs)
        outcomes = show(comparison, target)
    if interrupted:
        echo(f"Interrupted. Continue with: {command_in_folder(sys.argv, '--out', out)}")
        sys.exit(interrupted)
    if not all(outcome.state == "complete" for outcome in outcomes):
        sys.exit(1)


def with_defaults(common):
    """The settings of all runs with a model and a goal that fit the data, tried on a few samples."""
    import trainloop as tl
    from trainloop.cli.building import assembled, choose_precision

    choose_precision(common["dtype"])
    parts = assembled({**common, "seed": 0})
    if isinstance(parts.data, tl.Points):
        if common["epochs"] is not None or common["steps"] is None:
            raise ValueError("points of residuals have no epochs; give --steps, and no --epochs")
        return common
    return fitting(common, parts.data, DEFAULT_EPOCHS)


def as_arguments(common):
    """Settings as options, in one order: they are compared when a comparison goes on."""
    weights = [f"--loss-weight={text}" for text in sorted(common["loss_weights"])]
    named = {name: value for name, value in sorted(common.items()) if value is not None and name != "loss_weights"}
    return [*(f"--{name.replace('_', '-')}={value}" for name, value in named.items()), *weights]


def check_installed():
    """Raise one line where a library is missing that reports need, before a run begins."""
    from trainloop.errors import needed_for

    with usage_errors(), needed_for("a report of a comparison", "compare"):
        import jinja2  # noqa: F401
        import markupsafe  # noqa: F401
        import matplotlib  # noqa: F401


@contextlib.contextmanager
def usage_errors():
    """What is wrong with the arguments is one line, and exit code 2."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise click.UsageError(in_one_line(error)) from error


def check(methods, arguments):
    """Everything that can be wrong with the settings is wrong before the first run."""
    from trainloop.comparison import entrant

    for method in entrant.parse_all(methods):
        try:
            train.make_context("train", method.arguments(arguments))
        except click.UsageError as error:
            raise ValueError(f"{method.label}: {error.format_message()}") from error
        except ValueError as error:
            raise ValueError(f"{method.label}: {error}") from error


def do_runs(comparison, jobs):
    """Do what is not complete yet. Returns the exit code of an interruption, or 0."""
    from rich.console import Console

    from trainloop.comparison import running, watching

    outcomes = read_outcomes(comparison)
    for one in outcomes:
        if one.changed_code:
            echo(f"{one.run.name}: {', '.join(one.changed_code)} changed; restarting this run")
            one.run.remove()
    waiting = [one.run for one in outcomes if one.changed_code or one.state != "complete"]
    total = len(comparison.runs)
    echo(f"{total} runs in {comparison.path}" + (f", {total - len(waiting)} complete" if total > len(waiting) else ""))
    console, done = Console(), total - len(waiting)
    if not console.is_terminal:
        return _run(running.Runner(TRAIN, comparison, jobs, watching.PlainWatcher(echo, total, done)), waiting)
    with watching.LiveWatcher(console, total, done, comparison.epochs) as watcher:
        return _run(running.Runner(TRAIN, comparison, jobs, watcher), waiting)


def _run(runner, waiting):
    from trainloop.runs.signals import StopOnSignals

    with StopOnSignals(runner.stop) as signals:
        runner.run(waiting)
    return signals.exit_code


def read_outcomes(comparison):
    from trainloop.comparison import outcome

    try:
        return [outcome.read(run) for run in comparison.runs]
    except ValueError as error:  # of a file that was damaged
        raise click.ClickException(str(error)) from error


def show(comparison, target):
    """Write the report, and print its table. Returns the outcomes."""
    from rich.console import Console

    from trainloop.comparison import page, score, watching

    outcomes = read_outcomes(comparison)
    known = sorted({name for one in outcomes for name in one.log.epochs})
    if target and known and target.name not in known:
        echo(f"no run has the target {target.name!r}; their epochs have {', '.join(known)}", err=True)
    path = page.write(comparison, outcomes, target)
    target = target or score.common_target(outcomes)
    watching.print_table(Console(), score.rows(outcomes, target))
    if target is not None:
        echo(f"target: {target}")
    if len(comparison.seeds) > 1:
        echo("a ± b: mean and standard deviation over the seeds")
    for one in outcomes:
        if one.reason:
            echo(f"{one.run.name} failed: {one.reason}")
    echo(f"report: {path}")
    return outcomes


@compare.command()
@click.argument("methods", nargs=-1, required=True, metavar="METHOD[:KEY=VALUE,...] ...")
@click.option("--kind", type=click.Choice(["all", "smooth", "nonsmooth", "convex"]), default="all", show_default=True)
@click.option(
    "--tolerance",
    "tolerances",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    multiple=True,
    metavar="X",
    default=(1e-3, 1e-6),
    show_default=True,
    help="How much of the way to the minimum may be left; repeat it.",
)
@click.option("--budget", type=click.IntRange(min=2), default=2000, show_default=True, metavar="N", help="Evaluations.")
@click.option("--out", default="comparisons/problems", show_default=True, help="Folder.")
def problems(methods, kind, tolerances, budget, out):
    """Methods over the collection of test problems: performance and data profiles.

    Solved at tolerance X means that f has fallen by 1 - X of the way from f(x0) to the minimum.
    """
    import_tensorflow()
    check_installed()
    from rich.console import Console

    from trainloop.comparison import collection, entrant, folder, problems_page, watching

    tolerances, out = sorted(tolerances, reverse=True), pathlib.Path(out)
    with usage_errors():
        entrants = entrant.parse_all(methods)
        no_options_of_train(entrants)
        lock = folder.lock(out)
    with lock:
        with usage_errors():
            record = collection.Record(out / "problems.json", tolerances[-1], budget)
        for one in entrants:
            if record.is_outdated(one):
                echo(f"{one.label}: its file changed; restarting this run")
                record.forget(one)
        names = collection.of_kind(kind)
        todo = [(e, name) for e in entrants for name in names if not record.has(e.label, name)]
        for one, name in watching.track(Console(), todo, lambda pair: f"{pair[0].label} on {pair[1]}"):
            record.add(one, name, collection.solve(one, names[name], tolerances[-1], budget))
        path = out / "report.html"
        solved = problems_page.write(path, record, [e.label for e in entrants], list(names), kind, tolerances, budget)
    costs = collection.costs(record.solved, list(solved), list(names), tolerances[-1])
    for i, (method, counts) in enumerate(solved.items()):
        reached = ", ".join(f"{count} at {t:g}" for count, t in zip(counts, tolerances, strict=True))
        ends = problems_page.endings(record, method, names, costs[:, i])
        echo(f"{method}: solved {reached} of {len(names)}" + (f"; not solved: {ends}" if ends else ""))
    echo(f"report: {path}")


def no_options_of_train(entrants):
    for one in entrants:
        for setting in one.settings:
            if not (one.then and setting.startswith("--steps=")):  # which are those of its first phase
                raise ValueError(f"{one.label}: {setting} is an option of trainloop train, which problems do not take")


@compare.command()
@click.argument("folder", metavar="FOLDER")
@click.option("--target", metavar="NAME=VALUE", help="As above.  [default: that of the last report]")
def report(folder, target):
    """Write the report of a comparison anew, also while its runs go on."""
    import_tensorflow()
    check_installed()
    from trainloop.comparison import folder as folders
    from trainloop.comparison import page, score

    with usage_errors():
        comparison = folders.read(folder)
        target = score.parse_target(target) if target else page.given_target(comparison)
    show(comparison, target)
