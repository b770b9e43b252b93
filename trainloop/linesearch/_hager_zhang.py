"""The search of Hager and Zhang for a step that satisfies the Wolfe or the approximate Wolfe conditions, in scalars.

    T1:  phi(t) - phi(0) <= delta t phi'(0)  and  phi'(t) >= sigma phi'(0)
    T2:  (2 delta - 1) phi'(0) >= phi'(t) >= sigma phi'(0)  and  phi(t) <= phi(0) + eps

with phi(t) = f(x + t d). Where phi is a parabola, the first inequality of T2 says the same as that of T1, but in terms
of slopes. Near a minimum a slope is known to the precision of the dtype and a decrease only to its square root, so
that T2 is a test that can still be met.

The search keeps an interval [a, b] with

    phi(a) <= phi(0) + eps,    phi'(a) < 0,    phi'(b) >= 0                              (4.4)

which has a minimum inside, and shrinks it by two secant steps (secant2) and, should that not be enough, a bisection.
Nothing is evaluated here: `begin` and `advance` are pure functions, and who calls them evaluates.

W. W. Hager and H. Zhang (2005), A new conjugate gradient method with guaranteed descent and an efficient line search,
SIAM J. Optim. 16(1), section 4; (2006) Algorithm 851: CG_DESCENT, ACM TOMS 32(1). Labels B, L, S, U, T are theirs. The
paper nests its loops; here each evaluation is one step of a machine with four stages:

    _BRACKET   B0-B3    trials c, rho c, rho^2 c, ... until the interval is found
    _FIRST     S1       the trial is secant(a_k, b_k)
    _SECOND    S2-S4    the trial is a second secant, from the end that the first one replaced
    _MIDPOINT  L2       the trial is the midpoint, because both secants together shrank the interval too little

In every stage a trial may be high, phi(t) > phi(0) + eps with phi'(t) < 0; then U3 bisects until (4.4) holds again.

Two things differ. U3 of B2 begins at the last trial below phi(0) + eps instead of at 0, which is shorter and satisfies
(4.4) as well. And a trial where phi is not finite is a high one, but steps shrink to a tenth until one is finite.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from trainloop.linesearch.line import Point, inside, secant, select

_BRACKET, _FIRST, _SECOND, _MIDPOINT = range(4)

# What is left of a trial where phi is not finite while no finite one is known: nan_decay of CG_DESCENT.
_RETREAT = 0.1


class State(NamedTuple):
    """What the search knows. All entries are scalars.

    Attributes:
        t: the step to evaluate next.
        accepted: the last trial satisfies T1 or T2.
        done: nothing is left to try, because a trial was accepted or the interval can not be divided any more.
        stage: what the next trial is, see above.
        bisecting: U3 is under way; the next trial is its d.
        a, b: ends of the interval (A, B in S1-S4); b means nothing until there is one.
        a_k, b_k: the ends when the iteration k began.
    """

    t: tf.Tensor
    accepted: tf.Tensor
    done: tf.Tensor
    stage: tf.Tensor
    bisecting: tf.Tensor
    a: Point
    b: Point
    a_k: Point
    b_k: Point


@dataclasses.dataclass(frozen=True)
class HagerZhang:
    """The search with its constants: delta, sigma, epsilon, theta, gamma and rho of the paper."""

    decrease: float
    curvature: float
    epsilon: float
    theta: float
    gamma: float
    rho: float

    def begin(self, line, t0):
        """The state before the first trial, which is at t0 [].   B0."""
        no, origin = tf.zeros_like(t0, tf.bool), line.origin
        return State(t0, no, no, tf.fill(tf.shape(t0), _BRACKET), no, origin, origin, origin, origin)

    def advance(self, line, state, trial):
        """The state after a trial.

        Args:
            line: the `Line` that is searched.
            state: the `State` that asked for the trial.
            trial: the `Point` at state.t.
        """
        # One rule is U1-U3 and B1-B2 at once: a trial on a falling branch becomes a if it is low, all others become b.
        finite = trial.f < float("inf")
        rising = finite & (trial.slope >= 0)
        low = trial.f <= self._ceiling(line)
        falling_low = low & ~rising
        a, b = select(falling_low, trial, state.a), select(falling_low, state.b, trial)
        bisecting = ~rising & (state.bisecting | ~low)  # U3 ends at the first rising trial
        growing = (state.stage == _BRACKET) & falling_low & ~bisecting

        stage, t, restart = self._next_stage(line, state, a, b, rising, falling_low)
        t = tf.where(bisecting, a.t + self.theta * (b.t - a.t), t)  # U3a
        t = tf.where(finite | (a.t > 0), t, _RETREAT * trial.t)
        t = tf.where(growing, tf.minimum(self.rho * trial.t, line.longest), t)  # B3
        stage = tf.where(growing | bisecting, state.stage, stage)
        restart = restart & ~growing & ~bisecting
        stuck = tf.where(growing, t <= trial.t, ~inside(t, a.t, b.t, line.finest))
        accepted = self.accepts(line, trial)
        a_k, b_k = select(restart, a, state.a_k), select(restart, b, state.b_k)
        return State(t, accepted, accepted | stuck, stage, bisecting, a, b, a_k, b_k)

    def accepts(self, line, trial):
        """Whether a trial satisfies T1 or T2."""
        start = line.origin
        t1 = trial.f <= start.f + self.decrease * trial.t * start.slope
        t2 = (trial.slope <= (2.0 * self.decrease - 1.0) * start.slope) & (trial.f <= self._ceiling(line))
        return (t1 | t2) & (trial.slope >= self.curvature * start.slope)

    def _ceiling(self, line):
        """phi(0) + eps with eps = epsilon |phi(0)|, and not less than rounding."""
        return line.origin.f + tf.maximum(self.epsilon * tf.abs(line.origin.f), line.noise)

    def _next_stage(self, line, state, a, b, rising, falling_low):
        """What follows when an update is complete.

        Returns:
            (stage, t, restart): the next stage, its trial, and whether an iteration ends with it, so that [a, b]
            becomes [a_k, b_k].
        """
        middle = a.t + 0.5 * (b.t - a.t)

        # S2-S4: the first secant has become an end of the interval, unless U3 intervened.
        replaced = (state.stage == _FIRST) & ~state.bisecting & (rising | falling_low)
        second = tf.where(rising, secant(state.b_k, b), secant(state.a_k, a))
        go_second = replaced & inside(second, a.t, b.t, line.finest)

        # L2; it is skipped after the first interval and after a midpoint.
        in_secant2 = (state.stage == _FIRST) | (state.stage == _SECOND)
        slow = in_secant2 & (b.t - a.t > self.gamma * (state.b_k.t - state.a_k.t))

        # L1: the next iteration. Where rounding puts the secant on an end (U0), the midpoint follows at once.
        first = secant(a, b)
        go_first = ~slow & inside(first, a.t, b.t, line.finest)

        stage = tf.where(go_second, _SECOND, tf.where(go_first, _FIRST, _MIDPOINT))
        t = tf.where(go_second, second, tf.where(go_first, first, middle))
        return stage, t, ~go_second & ~slow
