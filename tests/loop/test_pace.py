"""Tests of trainloop.loop.pace: block lengths from invented times."""

from __future__ import annotations

import numpy as np
import pytest

from trainloop.loop.pace import Pace

SECONDS = 0.5  # what a block should take
GROWTH = 8


def after(*blocks, **options) -> Pace:
    """A pace that has seen blocks of (steps, seconds)."""
    pace = Pace(**options)
    for steps, seconds in blocks:
        pace.observe(steps, seconds)
    return pace


def settled(seconds_per_step, **options) -> int:
    """The limit after many blocks as long as allowed, the first of which was compiled for a minute."""
    pace = after((1, 60.0), **options)
    for _ in range(30):
        pace.observe(pace.limit(), pace.limit() * seconds_per_step)
    return pace.limit()


@pytest.mark.parametrize("steps_per_call", [1, 7, np.int64(7)])
def test_a_fixed_limit_never_changes(steps_per_call):
    assert Pace(steps_per_call).limit() == steps_per_call
    assert after((7, 9.0), (7, 1e-9), (7, 9.0), steps_per_call=steps_per_call).limit() == steps_per_call


@pytest.mark.parametrize("steps_per_call", [0, -1, 1.0, True, "10"])
def test_a_fixed_limit_must_be_a_positive_integer(steps_per_call):
    expected = f"steps_per_call must be an integer of at least 1, received {steps_per_call!r}"
    with pytest.raises(ValueError, match=expected):
        Pace(steps_per_call)


def test_it_starts_with_one_step():
    assert Pace().limit() == 1


@pytest.mark.parametrize("seconds", [1e-9, 60.0])
def test_the_first_block_is_ignored(seconds):
    assert after((1, seconds)).limit() == 1
    assert after((1, seconds), (1, 0.25)).limit() == 2


def test_empty_blocks_are_ignored():
    assert after((0, 1.0), (1, 1e-9)).limit() == 1  # the block after an empty one is still the first
    assert after((1, 1.0), (0, 0.0), (0, 9.0)).limit() == 1


@pytest.mark.parametrize("seconds_per_step", [1e-5, 1e-3, 0.02, 0.24])
def test_it_settles_at_half_a_second(seconds_per_step):
    limit = settled(seconds_per_step)
    assert limit * seconds_per_step <= SECONDS * (1 + 1e-9)
    assert (limit + 2) * seconds_per_step > SECONDS


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e-6])
def test_growth_is_bounded(seconds):
    pace, before = after((1, 60.0)), 1
    for _ in range(5):
        pace.observe(before, seconds)
        assert before < pace.limit() <= GROWTH * before
        before = pace.limit()


def test_a_short_remainder_does_not_stop_growth_or_exceed_it():
    pace = after((1, 60.0), (1, 1e-6), (8, 8e-6))
    before = pace.limit()
    pace.observe(3, 3e-6)
    assert before <= pace.limit() <= GROWTH * before


@pytest.mark.parametrize("seconds_per_step", [0.6, 30.0])
def test_slow_steps_are_taken_one_at_a_time(seconds_per_step):
    assert settled(seconds_per_step) == 1


def test_it_shrinks_when_steps_become_slow():
    assert after((1, 60.0), (1, 1e-3), (8, 8e-3), (64, 64.0)).limit() == 1


@pytest.mark.parametrize("most", [1, 10, 1024])
def test_most_is_a_limit_on_top(most):
    assert settled(1e-7, most=most) == most
    assert settled(0.1, most=most) == min(5, most)
    assert Pace(2000, most).limit() == most
    assert Pace(3, most).limit() == min(3, most)
