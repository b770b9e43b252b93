"""Checks of arguments and of arrays: expected, received, what to do, always in one line.

They run when an object is built, never inside compiled code (there, see `status`). Checks of arguments return the value
they checked, converted to the plain Python type, so that a check and an assignment are one statement. Checks of arrays
say which values are wrong, how many there are, and where the first one is.
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
from collections.abc import Iterable

import numpy as np


def real(name, value, *, above=None, at_least=None, below=None, at_most=None):
    """A finite real number inside an interval, as a float.

    Args:
        name: what the argument is called, for the message.
        value: what the user gave. Integers are taken, booleans are not.
        above, at_least, below, at_most: open and closed ends of the interval.

    Raises:
        ValueError: not a finite real number, or outside the interval.
    """
    limits = [("above", above), ("at least", at_least), ("below", below), ("at most", at_most)]
    wanted = " and ".join([f"{words} {limit:g}" for words, limit in limits if limit is not None])
    expected = f"{name} must be a finite number{' ' + wanted if wanted else ''}, received {value!r}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(expected)
    inside = (
        (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not inside or not math.isfinite(value):
        raise ValueError(expected)
    return value


def integer(name, value, *, at_least=None):
    """A whole number not below a limit, as an int. Booleans and floats are errors.

    Raises:
        ValueError: not an integer, or below the limit.
    """
    wanted = "" if at_least is None else f" of at least {at_least}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be an integer{wanted}, received {value!r}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be an integer{wanted}, received {value!r}")
    return int(value)


def flag(name, value):
    """True or False and nothing that merely looks like it.

    Raises:
        ValueError: not a bool.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, received {value!r}")
    return value


def choice(name, value, allowed):
    """One of a few words, with the nearest one named when it is missed.

    Raises:
        ValueError: not among `allowed`.
    """
    if value in allowed:
        return value
    raise ValueError(f"{name} must be one of {', '.join(allowed)}; received {value!r}{near_miss(value, allowed)}")


def one_of_two(name, value, keras_name, keras_value, default):
    """The value of an argument that may also be given under Keras's name.

    Args:
        name, value: of this package.
        keras_name, keras_value: of Keras; None where it was not given.
        default: of `value`.

    Raises:
        ValueError: both were given.
    """
    if keras_value is None:
        return value
    if value != default:
        raise ValueError(
            f"{name} and {keras_name} are two names of one argument, received {name}={value!r} and "
            f"{keras_name}={keras_value!r}; give one of them"
        )
    return keras_value


def near_miss(word, known):
    """' (did you mean ...?)' when something in `known` is close to `word`, else the empty string."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def error(subject: str, expected: str, received: str, advice: str) -> ValueError:
    """Every complaint of this module has this one form, in one line."""
    return ValueError(printable(f"{subject}: expected {expected}, received {received}; {advice}"))


# Control characters but for tabs and ends of lines, those that turn the direction of writing, and halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    """A text in which what would move a cursor, change colours or turn lines round is written out, as in '\\x1b[2J'."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def first(bad: np.ndarray) -> tuple[int, ...]:
    """The index of the first True in `bad`."""
    return tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))


def check_finite(name: str, values: np.ndarray) -> None:
    """ValueError that counts the NaN and infinite values and names the first."""
    bad = ~np.isfinite(values)
    if bad.any():
        received = f"{np.count_nonzero(bad)} of {bad.size} NaN or infinite, the first at index {first(bad)}"
        raise error(name, "finite values", received, "remove or replace them")


def check_range(name: str, values: np.ndarray, low: float, high: float, advice: str) -> None:
    """ValueError that names the first value outside low..high (both included)."""
    bad = (values < low) | (values > high)
    if bad.any():
        index = first(bad)
        received = f"{values[index]} at index {index} ({np.count_nonzero(bad)} of {bad.size} lie outside)"
        raise error(name, f"values in {low}..{high}", received, advice)


def one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


def listing(names: Iterable[str], limit: int = 8) -> str:
    """The names in one short phrase, however many they are."""
    names = sorted(names)
    more = [f"{len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(names[:limit] + more) or "nothing"
