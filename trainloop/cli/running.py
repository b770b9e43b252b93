"""A run of the command line from its first line to its last: what is printed, trained, written and measured."""

import sys

import click

from trainloop.checks import printable
from trainloop.cli import ending
from trainloop.cli.common import echo, echo_text, in_one_line
from trainloop.hooks.metrics_file import append_test
from trainloop.runs import specs
from trainloop.runs.directory import command_to_resume, write_results
from trainloop.runs.signals import StopOnSignals
from trainloop.status import TrainingError


def run(built, resumed_at):
    """Train, write the results, and say what came out.

    Args:
        built: the `Built`, in whose folder the run has begun.
        resumed_at: the step from which it continues; None where it begins.

    Raises:
        click.ClickException: a step failed, and the results were written.
        SystemExit: a signal has interrupted it.
    """
    settings, loop, directory, test = built.settings, built.loop, built.directory, built.parts.test
    title = printable(f"{settings['model']} on {settings['dataset']} with {specs.names(specs.phases(settings))}")
    heard = loop.is_chief and not settings["quiet"]
    if heard:
        announce(built, title, resumed_at)
    result, failure = trained(built)
    if loop.optimizer.best_point() is not None:
        loop.optimizer.restore_best()  # by all workers, which measure it together below
    if loop.is_chief:
        missing = write_results(directory, loop, result, title, resumed=resumed_at is not None)
        if missing:
            echo(missing, err=True)
    if failure is not None:
        raise click.ClickException(str(failure))
    measured = loop.evaluate(built.batches if test is None else test)
    if not loop.is_chief:
        return
    if test is not None:
        log_test(directory.metrics, measured)
    echo(ending.result_line(measured, result.seconds, "" if test is None else "test "))
    if heard:
        ending.say_what_next(directory, result, sys.argv)


def announce(built, title, resumed_at):
    """Print what will be trained, the memory of its state, and where it begins."""
    optimizer, folder = built.loop.optimizer, built.directory.path
    n, samples = optimizer.layout.size, "points" if built.parts.test is None else "training samples"
    echo_text(f"{title}: n = {n:,} parameters, {built.batches.size:,} {samples}, files in {folder}")
    echo(optimizer.memory_plan(n, optimizer.layout.dtype))
    if built.settings["resume"]:
        nothing = f"nothing to continue in {folder}: from the beginning"
        echo(nothing if resumed_at is None else f"continues after step {resumed_at}")


def trained(built):
    """(`RunResult`, the `TrainingError` that has ended the run or None); a signal ends the program here."""
    settings, failure = built.settings, None
    steps = None if settings["then"] else settings["steps"]  # those of phases are their own
    with StopOnSignals(built.loop.stop) as signals:
        try:
            result = built.loop.run(
                built.batches,
                until_epoch=settings["epochs"],
                until_step=steps,
                validation_data=built.parts.test,
                verbose=0,  # the display is a hook
            )
        except TrainingError as error:
            result, failure = error.result, error
    if signals.received and failure is None:
        if built.loop.is_chief:
            again = command_to_resume(sys.argv, built.directory.path)
            echo(f"Stopped after step {result.step}. Continue with: {again}")
        sys.exit(signals.exit_code)
    return result, failure


def log_test(path, measured):
    """Append what was measured on the test data to the log of a run."""
    try:
        append_test(path, measured)
    except OSError as error:
        echo(f"{path} lacks the test: {in_one_line(error)}", err=True)
