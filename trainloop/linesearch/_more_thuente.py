"""The search of More and Thuente for a step that satisfies the strong Wolfe conditions, in scalars.

    phi(t) <= phi(0) + decrease t phi'(0)        sufficient decrease
    |phi'(t)| <= curvature |phi'(0)|             strong curvature

with phi(t) = f(x + t d). The search keeps an interval that ends in the best step so far and in another one. Each
trial replaces one end, and interpolation between the ends gives the next trial. At first there is no second end: then
the step grows. Nothing is evaluated here: `begin` and `advance` are pure functions, and who calls them evaluates.

J. J. More and D. J. Thuente (1994), Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20(3). Their
alpha_l is `best` here, alpha_u is `other` and alpha_t is `trial`.

Two things are added. Where phi is not finite there is a wall: steps shrink to a tenth until one is finite, then halve
the way between the best one and the wall. And where values of phi no longer resolve a difference, slopes decide
(`_resolved`).
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from trainloop.linesearch.line import Point, cubic, farther, inside, nearer, parabola, secant, select

# A growing step goes at least and at most so many times its last stride further.
_SHORTEST_STRIDE, _LONGEST_STRIDE = 0.2, 4.0

# The interval shrinks by this factor in two trials, or it is halved; and where both slopes point to the other end, no
# guess goes further than this part of the way there.
_PART = 0.66

# What is left of a trial where phi is not finite while no finite one is known.
_RETREAT = 0.1


class State(NamedTuple):
    """What the search knows. All entries are scalars.

    Attributes:
        t: the step to evaluate next.
        accepted: the last trial satisfies the conditions.
        done: nothing is left to try, because a trial was accepted or the interval can not be divided any more.
        best: the end with the lower value; the slope there points into the interval.
        other: the other end, once `bracketed`.
        bracketed: a minimum lies between the ends.
        convex: a trial had sufficient decrease and no negative slope, which begins the second stage of the paper.
        wall: no step as long as this is tried.
        width, width_before: lengths of the interval after the last trial and after the one before.
    """

    t: tf.Tensor
    accepted: tf.Tensor
    done: tf.Tensor
    best: Point
    other: Point
    bracketed: tf.Tensor
    convex: tf.Tensor
    wall: tf.Tensor
    width: tf.Tensor
    width_before: tf.Tensor


@dataclasses.dataclass(frozen=True)
class MoreThuente:
    """The search with its two constants, 0 < decrease <= curvature < 1."""

    decrease: float
    curvature: float

    def begin(self, line, t0):
        """The state before the first trial, which is at t0 []."""
        no, infinite = tf.zeros_like(t0, tf.bool), float("inf") * tf.ones_like(t0)
        return State(t0, no, no, line.origin, line.origin, no, no, line.longest, infinite, infinite)

    def advance(self, line, state, trial):
        """The state after a trial.

        Args:
            line: the `Line` that is searched.
            state: the `State` that asked for the trial.
            trial: the `Point` at state.t.
        """
        accepted = self.accepts(line, trial)
        finite = trial.f < float("inf")
        wall = tf.where(finite | state.bracketed, state.wall, trial.t)
        trial = _resolved(trial, state.best, line.noise)
        convex = state.convex | ((self._psi(line, trial) <= line.origin.f) & (trial.slope >= 0))
        tilt = self._tilt(line, state.best, trial, convex)
        best, other, new = (_tilted(point, tilt) for point in (state.best, state.other, trial))

        guess = _interpolate(best, other, new, state.bracketed, wall)
        higher, opposite = new.f > best.f, tf.sign(new.slope) * tf.sign(best.slope) < 0
        bracketed = state.bracketed | (finite & (higher | opposite))
        # The ends are chosen by the tilted values and kept as they are.
        other = select(higher, trial, select(opposite, state.best, state.other))
        best = select(higher, state.best, trial)

        width = tf.abs(other.t - best.t)
        halve = bracketed & ((width >= _PART * state.width_before) | ~inside(guess, best.t, other.t, line.finest))
        t = tf.where(halve, best.t + 0.5 * (other.t - best.t), guess)
        back = tf.where(best.t > 0, best.t + 0.5 * (trial.t - best.t), _RETREAT * trial.t)
        t = tf.where(finite, t, back)
        stuck = tf.where(bracketed, ~inside(t, best.t, other.t, line.finest), ~(t > best.t))
        width, width_before = (
            tf.where(bracketed, now, before)
            for now, before in ((width, state.width), (state.width, state.width_before))
        )
        done = accepted | stuck
        return State(t, accepted, done, best, other, bracketed, convex, wall, width, width_before)

    def accepts(self, line, trial):
        """Whether a trial satisfies both conditions, the first of them up to rounding."""
        enough = (self._psi(line, trial) <= line.origin.f) | (tf.abs(trial.f - line.origin.f) <= line.noise)
        return enough & (tf.abs(trial.slope) <= -self.curvature * line.origin.slope)

    def _psi(self, line, trial):
        """phi(t) - decrease t phi'(0), which is at most phi(0) where the decrease is sufficient; equation 2.1."""
        return trial.f - self.decrease * trial.t * line.origin.slope

    def _tilt(self, line, best, trial, convex):
        """The slope of the line to subtract from phi: in the first stage a trial with some decrease that is not
        sufficient is judged by psi instead of phi; section 3."""
        judged_by_psi = ~convex & (trial.f <= best.f) & (self._psi(line, trial) > line.origin.f)
        return tf.where(judged_by_psi, self.decrease * line.origin.slope, tf.zeros_like(trial.t))


def _resolved(trial, best, noise):
    """The trial with a value that its slope confirms.

    Values closer together than `noise` are equal but for rounding, while slopes still differ. Then the value is
    taken to be what the trapezoidal rule gives: the end with the smaller slope becomes the best, and the cubic
    becomes the secant.
    """
    level = tf.abs(trial.f - best.f) <= noise
    integrated = best.f + 0.5 * (trial.t - best.t) * (best.slope + trial.slope)
    return trial._replace(f=tf.where(level, integrated, trial.f))


def _tilted(point, tilt):
    return Point(point.t, point.f - point.t * tilt, point.slope - tilt)


def _interpolate(best, other, trial, bracketed, wall):
    """The next step: the four cases of section 4."""
    c, s, q = cubic(best, trial), secant(best, trial), parabola(best, trial)
    stride = trial.t - best.t

    # 1. A higher value: a minimum in between, nearer to the best step.
    higher = tf.where(tf.abs(c - best.t) < tf.abs(q - best.t), c, 0.5 * (c + q))

    # 2. A lower value and slopes of opposite sign: a minimum in between, nearer to the trial.
    opposite = farther(trial.t, c, s)

    # 3. A lower value, and the slope is less steep: a minimum beyond the trial, as far as one can tell.
    nearest, farthest = _reach(best, trial, wall)
    beyond = (c - trial.t) * stride > 0
    c = tf.where(beyond, c, farthest)
    growing = tf.clip_by_value(farther(trial.t, c, s), tf.minimum(nearest, farthest), farthest)
    limit = trial.t + _PART * (other.t - trial.t)
    between = nearer(trial.t, nearer(trial.t, tf.where(beyond, c, limit), s), limit)
    flatter = tf.where(bracketed, between, growing)

    # 4. A lower value, and the slope is no less steep: a minimum beyond, at an unknown place.
    steeper = tf.where(bracketed, cubic(trial, other), farthest)

    is_opposite = tf.sign(trial.slope) * tf.sign(best.slope) < 0
    is_flatter = tf.abs(trial.slope) < tf.abs(best.slope)
    t = tf.where(is_opposite, opposite, tf.where(is_flatter, flatter, steeper))
    return tf.where(trial.f > best.f, higher, t)


def _reach(best, trial, wall):
    """Least and greatest step after a trial that was too short."""
    stride = trial.t - best.t
    to_wall = trial.t + 0.5 * (wall - trial.t)
    return trial.t + _SHORTEST_STRIDE * stride, tf.minimum(trial.t + _LONGEST_STRIDE * stride, to_wall)
