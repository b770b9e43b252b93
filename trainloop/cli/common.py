"""What all command-line programs share: help, errors, exit codes, the import of TensorFlow.

Nothing here imports TensorFlow before it is asked to: `--help` is there at once.
"""

import contextlib
import importlib.machinery
import logging
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from typing import Any

import click

from trainloop.checks import printable
from trainloop.runs import specs
from trainloop.runs.settings import SETTINGS

# Of options for a whole number from 1, and for any number above 0.
COUNT: dict[str, Any] = {"type": click.IntRange(min=1), "metavar": "N"}
POSITIVE: dict[str, Any] = {"type": click.FloatRange(min=0, min_open=True), "metavar": "X"}


class BatchSize(click.ParamType):
    """A positive number of samples, or "full" for the whole training set."""

    name = "N|full"

    def convert(self, value, param, ctx):
        if value == "full":
            return value
        try:
            size = int(value)
        except (ValueError, TypeError):  # a config.json may hold anything
            size = 0
        if size < 1:
            self.fail(f"{value!r} is neither a positive number nor 'full'", param, ctx)
        return size


class PhaseSpecType(click.ParamType):
    """A phase of a run, such as "ssbroyden:storage=dense,--steps=2000"."""

    name = "METHOD[:KEY=VALUE,...]"

    def convert(self, value, param, ctx):
        try:
            specs.phase(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class OptionsBeforeThen(click.Command):
    """A command whose --then takes the settings of what follows: those of the first optimizer stand before it."""

    def parse_args(self, ctx, args):
        of_first = {entry.name for entry in SETTINGS if entry.of_first_phase}
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        names = [param.name for param in order]
        behind = names[names.index("then") :] if "then" in names else []
        for param in order:
            if param.name in of_first & {*behind}:
                raise click.UsageError(
                    f"{param.opts[0]} belongs to --optimizer and stands behind --then; give it before, or to the phase "
                    "in its own specification, as in --then lbfgs:m=20,--steps=2000",
                    ctx,
                )
        return super().parse_args(ctx, args)


def as_help(text):
    """The docstring of a program as its help: commands in it keep their lines."""
    return re.sub("\n\n(?= *(python|trainloop) )", "\n\n\b\n", text)


def import_tensorflow():
    """Import TensorFlow with fast convolutions and without its start-up messages.

    It uses oneDNN by default on some processors only; on others convolutions take half as long again or more without.
    The messages go past Python straight to file descriptor 2; they are shown after all when the import fails.
    """
    name_shadows()
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Of several workers each says in one line what happened; TensorFlow tells the same in many.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if os.environ.get("TF_CONFIG") else "2")
    with _saying("loading TensorFlow ..."), _leaving_at_once(), _without_stderr():
        import keras  # noqa: F401  # the other half of the seconds
        import tensorflow as tf

        tf.config.list_physical_devices()  # the search for GPUs has messages of its own


# What is imported sooner or later, and could be a user's file of the same name.
_NEEDED = (
    *("tensorflow", "keras", "numpy", "h5py", "ml_dtypes", "optree", "absl", "google", "namex", "packaging", "wrapt"),
    *("rich", "click", "matplotlib", "PIL", "sklearn", "scipy", "jinja2", "markupsafe"),
)


def name_shadows():
    """Raise where a file of the current folder would be imported in place of a library, now or hours later.

    Raises:
        click.UsageError: names the file.
    """
    here = pathlib.Path.cwd()
    elsewhere = [entry for entry in sys.path if entry not in ("", ".", str(here))]
    for name in (*_NEEDED, *sys.stdlib_module_names):
        for own in (here / f"{name}.py", here / name / "__init__.py"):
            if own.is_file() and _finds(name, sys.path) == own and _finds(name, elsewhere) is not None:
                raise click.UsageError(
                    f"{own} would be imported in place of the module {name}, which is needed; rename the file, or take "
                    "the folder from PYTHONPATH"
                )


def _finds(name, path):
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    return pathlib.Path(spec.origin) if spec and spec.has_location else None


@contextlib.contextmanager
def _saying(text):
    """A note on a terminal while TensorFlow loads; it is erased afterwards."""
    if "tensorflow" in sys.modules or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _leaving_at_once():
    """Ctrl-C ends the program inside. What is imported may swallow the exception that Python makes of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stderr = os.dup(2)

    def leave(*_):
        os.write(stderr, b"\nInterrupted.\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(stderr)


@contextlib.contextmanager
def _without_stderr():
    """What is written to file descriptor 2 inside is shown only when an exception ends it."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        except Exception:
            swallowed.seek(0)
            os.write(stderr, swallowed.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def blaming_user_code():
    """What goes wrong inside of a run ends with one line, which names the line of the user's code if it was there."""
    from trainloop.distributed.workers import WorkersError
    from trainloop.errors import users_line

    try:
        yield
    except (click.ClickException, click.exceptions.Exit):
        raise
    except Exception as error:
        error.__traceback__ = error.__traceback__.tb_next  # without this function, which is no user's
        where = users_line(error)
        if not isinstance(error, (OSError, WorkersError)):  # a full disk needs no traceback
            traceback.print_exc()
        raise click.ClickException(f"{type(error).__name__}{where}: {in_one_line(error)}") from error


def echo(line, err=False):
    """Print a line. A terminal that is gone, or a full disk behind a redirection, costs the line and not the run.

    Args:
        line: what to print.
        err: whether to standard error.
    """
    with contextlib.suppress(OSError, ValueError):  # ValueError: of a stream that is closed
        click.echo(printable(str(line)), err=err)


def echo_text(text, err=False):
    """Print a message. On a terminal its lines end between words; in a pipe it is one line.

    Args:
        text: what to print, without a command in it, which would be copied in parts.
        err: whether to standard error.
    """
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(str(text), width, break_long_words=False, break_on_hyphens=False)
    for line in str(text).split("\n"):
        echo(line, err)


class _Told(logging.Handler):
    """Prints what the package logs."""

    def emit(self, record):
        echo_text(record.getMessage(), err=True)


def in_one_line(error):
    """What an exception says."""
    return " ".join(str(error).split())


def run_main(command):
    """Run a command; whatever is wrong with its arguments is one line and exit code 2."""
    log = logging.getLogger("trainloop")
    log.addHandler(told := _Told(logging.WARNING))
    try:
        command(standalone_mode=False)
        _let_go_of_output()
    except click.UsageError as error:
        echo(f"Error: {error.format_message()}", err=True)
        _end(2)
    except click.ClickException as error:
        echo(f"Error: {error.format_message()}", err=True)
        _end(1)
    except (click.Abort, KeyboardInterrupt):
        echo("Interrupted.", err=True)
        _end(130)
    except Exception:
        traceback.print_exc()
        _end(1)
    finally:
        log.removeHandler(told)


def _let_go_of_output():
    """What could not be printed is no reason for Python to end with another exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _end(code):
    """Exit. A worker does so at once: the usual way waits for all others, and they would wait for this one."""
    if os.environ.get("TF_CONFIG"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
