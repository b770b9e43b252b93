"""Errors in one line: where a user's code went wrong, and what is not installed."""

import contextlib
import os
import pathlib
import sys
import traceback

import keras


def mistake(text, error):
    """An exception in a user's code as a ValueError of one line that points at the user's line.

    Args:
        text: what the user typed to name what failed.
        error: the exception.
    """
    return ValueError(f"{text}{users_line(error)}: {type(error).__name__}: {' '.join(str(error).split())}")


def users_line(error):
    """The innermost line of an exception that is a user's, as " at file:line in function"; empty where there is none.

    Lines of this package, of libraries and of the program that was started are not the user's.
    """
    libraries = [pathlib.Path(module.__file__).resolve().parent for module in (sys.modules[__package__], os)]
    libraries.append(pathlib.Path(keras.__file__).resolve().parent.parent)
    program = getattr(sys.modules["__main__"], "__file__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = pathlib.Path(frame.filename).resolve()
        ours = program is not None and file == pathlib.Path(program).resolve()
        if file.is_file() and not ours and not any(library in file.parents for library in libraries):
            return f" at {frame.filename}:{frame.lineno} in {frame.name}"
    return ""


@contextlib.contextmanager
def needed_for(purpose, extra):
    """Imports of what only some users need.

    Args:
        purpose: what they are for, the beginning of the message.
        extra: name of the extra in setup.cfg that installs them.

    Raises:
        ImportError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0].replace("sklearn", "scikit-learn")
        raise ImportError(
            f"{purpose} needs {package}, which is not installed; the extra [{extra}] brings it: "
            f"pip install '.[{extra}]' in the folder of trainloop, or pip install {package}"
        ) from error
