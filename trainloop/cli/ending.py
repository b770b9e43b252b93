"""The last lines of a run: what came out, where it is, and how to do it again."""

from trainloop.cli.common import echo, echo_text
from trainloop.runs.directory import command_to_repeat
from trainloop.status import Status


def result_line(measured, seconds, of=""):
    """`test loss 0.1234, test accuracy 95.28%, 3.5 s`.

    Args:
        measured: {name: number}.
        seconds: that the run took.
        of: what was measured, as in "test "; empty for the data that were trained on.
    """
    return ", ".join(
        [*(f"{of}{name} {_in_words(name, value)}" for name, value in measured.items()), f"{seconds:.1f} s"]
    )


def say_what_next(directory, result, arguments):
    """Print below the result why a run ended before its goal, where its files are, and what repeats it.

    Args:
        directory: the `RunDirectory`, whose files are written.
        result: the `RunResult`.
        arguments: `sys.argv`.
    """
    if result.status != Status.FINISHED:
        echo_text(f"Stopped early after step {result.step}: {result.message}.")
    echo_text(f"{_files_in(directory).capitalize()} in {directory.path}")
    echo(f"Repeat it with: {command_to_repeat(arguments, directory.config)}")


def _files_in(directory):
    """`model, log and curves`, as far as they are there."""
    named = {"model": directory.model, "log": directory.metrics, "curves": directory.curves}
    *names, last = [name for name, path in named.items() if path.exists()] or ["nothing"]
    return f"{', '.join(names)} and {last}" if names else last


def _in_words(name, value):
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
