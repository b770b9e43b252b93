"""Backtracking to a step with sufficient decrease, in scalars.

    phi(t) <= phi(0) + decrease t phi'(0)             Armijo (1966); Nocedal and Wright (2006), equation 3.6a

with phi(t) = f(x + t d). Trials need the value of phi alone. A step that fails is shortened to the minimum of a
parabola or cubic through what is known, but to no less than a tenth and no more than a half of it.
Once a value passes, the gradient there is asked for, and with it comes the last test: it must be finite.
Nothing is evaluated here: `begin` and `advance` are pure functions, and who calls them evaluates.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from trainloop.linesearch.line import Point, select
from trainloop.vectors import linalg

# A step is shortened to no less and no more than these parts of it.
_LEAST, _MOST = 0.1, 0.5


class State(NamedTuple):
    """What the search knows. All entries are scalars.

    Attributes:
        t: the step to evaluate next.
        wants_gradient: evaluate value and gradient there, not the value alone.
        accepted: the last evaluation was of value and gradient, and satisfies the condition.
        last: no evaluation follows: the trials have run out, and t is the lowest of them.
        done: nothing is left to try.
        before: the last value that failed, for the cubic; at t = 0 when there is none.
        lowest: the least value so far, whose gradient is asked for if the trials run out.
        remaining: int32, how many evaluations may follow.
    """

    t: tf.Tensor
    wants_gradient: tf.Tensor
    accepted: tf.Tensor
    last: tf.Tensor
    done: tf.Tensor
    before: Point
    lowest: Point
    remaining: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Backtracking:
    """The search with its constants, 0 < decrease < 1 and max_evaluations at least 2."""

    decrease: float
    max_evaluations: int

    def begin(self, line, t0):
        """The state before the first trial, which is at t0 []."""
        no, remaining = tf.zeros_like(t0, tf.bool), tf.fill(tf.shape(t0), self.max_evaluations)
        return State(t0, no, no, no, no, line.origin, line.origin, remaining)

    def advance(self, line, state, trial):
        """The state after a trial.

        Args:
            line: the `Line` that is searched.
            state: the `State` that asked for the trial.
            trial: the `Point` at state.t; its slope is not used.
        """
        enough = trial.f <= line.origin.f + self.decrease * trial.t * line.origin.slope
        accepted, passed = enough & state.wants_gradient, enough & ~state.wants_gradient
        # A point whose gradient was asked for and is not finite is never asked for again.
        lowest = select(trial.f < state.lowest.f, trial, state.lowest)
        lowest = select(state.wants_gradient, line.origin, lowest)

        remaining = state.remaining - 1
        shorter = shortened(line.origin, state.before, trial)
        last = ~enough & ((shorter <= line.finest) | (remaining < 2))  # a trial is a value and then a gradient
        t = tf.where(passed, trial.t, tf.where(last, lowest.t, shorter))
        done = accepted | state.last | (last & (lowest.t == 0))
        before = select(enough, state.before, trial)
        return State(t, passed | last, accepted, last, done, before, lowest, remaining)


def shortened(origin, before, trial):
    """A step between a tenth and a half of the trial, the minimiser of an interpolating polynomial:

        phi(0) + phi'(0) t + p t^2 + q t^3        Nocedal and Wright (2006), section 3.5

    The parabola, q = 0, agrees with phi at the trial, and the cubic also at the one before. Of both minimisers the
    shorter one is taken: after a step that was far too long the cubic has a hump, and its minimiser lies beyond.
    -phi'(0) / (p + sqrt(p^2 - 3 q phi'(0))) is the form without cancellation.
    """

    # Units that are powers of two change no digit, and keep the square of p inside of the range of the dtype.
    unit_t = linalg.power_of_two(trial.t)
    unit_f = linalg.power_of_two(-origin.slope * unit_t)
    origin, before, trial = (
        Point(point.t / unit_t, point.f / unit_f, point.slope * unit_t / unit_f) for point in (origin, before, trial)
    )

    def bend(point):
        return (point.f - origin.f - origin.slope * point.t) / point.t / point.t

    q = (bend(before) - bend(trial)) / (before.t - trial.t)
    p = bend(trial) - q * trial.t
    parabola = -0.5 * origin.slope / bend(trial)
    cubic = -origin.slope / (p + tf.sqrt(tf.square(p) - 3.0 * q * origin.slope))
    # Without a finite value before, the cubic is NaN or infinite, and the comparison false.
    t = tf.where((cubic > 0) & (cubic < parabola), cubic, parabola)
    return unit_t * tf.clip_by_value(t, _LEAST * trial.t, _MOST * trial.t)
