"""Checks of whole arrays, in one line each: which values are wrong, how many, and where the first is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def error(subject: str, expected: str, received: str, advice: str) -> ValueError:
    """Every complaint of this module has this one form, in one line."""
    return ValueError(f"{subject}: expected {expected}, received {received}; {advice}")


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
    return " ".join(str(error).split()) or type(error).__name__


def listing(names: Iterable[str], limit: int = 8) -> str:
    """The names in one short phrase, however many they are."""
    names = sorted(names)
    more = [f"{len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(names[:limit] + more) or "nothing"
