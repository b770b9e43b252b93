"""Tracebacks with the lines of the user, without those of libraries.

An error in a loss passes through some forty frames of this package, of Keras and of TensorFlow. They say nothing about
the loss. As in Keras, `keras.config.disable_traceback_filtering()` shows them all.
"""

import functools
import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import keras

_P = ParamSpec("_P")
_R = TypeVar("_R")

_LIBRARIES = ("trainloop", "keras", "tensorflow")


def filtered(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function whose exceptions show no lines of libraries. For the entry points."""

    @functools.wraps(function)
    def filtering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # before Python 3.11 a `raise` brings all lines back
            if not keras.config.is_traceback_filtering_enabled():
                raise
            filter_traceback(error)
            raise

    return filtering


def filter_traceback(error: BaseException) -> None:
    """Take the lines of libraries out of the traceback of an exception, and of those that led to it.

    Where all are theirs, the last one stays: it is where the error was found.

    Args:
        error: the exception. It is changed in place.
    """
    seen: set[int] = set()
    folders = _folders()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = _without(one.__traceback__, folders)
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]


def _folders():
    modules = [sys.modules[name] for name in _LIBRARIES if name in sys.modules]
    # Methods that `dataclasses` makes have no file.
    return ("<string>", *(f"{pathlib.Path(module.__file__).parent}{os.sep}" for module in modules if module.__file__))


def _without(trace, folders):
    """A traceback without the frames of files in some folders."""
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    own = [one for one in frames if not one.tb_frame.f_code.co_filename.startswith(folders)] or frames[-1:]
    kept = None
    for one in reversed(own):
        kept = types.TracebackType(kept, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return kept
