"""How far to go along a direction: line searches over f(x + t d), t > 0.

    armijo          sufficient decrease; trials need f alone
    strong_wolfe    sufficient decrease and a small slope; for quasi-Newton methods (curvature 0.9) and nonlinear
                    conjugate gradients (0.1 to 0.4)
    hager_zhang     Wolfe or approximate Wolfe conditions; for conjugate gradients at the limit of the precision

All three are one loop: evaluate at the step asked for, let a rule of scalars ask for the next (`_backtracking`,
`_more_thuente`, `_hager_zhang`), keep the vectors of the best point. They are pure functions of tensors which work
eagerly, in a `tf.function`, in loops, under XLA, in float32 and float64. What a caller can rely on:

1. Each search evaluates at one place in the code, so a network is traced once, not once per trial.
2. No more than `max_evaluations` calls are made, and `evaluations` says how many.
3. Failure is a value. Then success is False, and the point is the lowest one seen, or x itself when none was lower.
4. Nothing non-finite comes back. A trial where f is NaN or +inf, or g not finite, counts as f = +inf, and the step
   shrinks. A trial where f = -inf ends the search at once with `unbounded`: nothing can be lower.
5. No search begins, and nothing is evaluated, unless g'd < 0, t0 > 0 and all inputs are finite.
6. A search ends when its interval holds no further step: when x + t d is the same for all t in it.

What they do not do: choose the direction or t0. For Newton-like directions t0 = 1; else a guess from the step before.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from trainloop import checks
from trainloop.linesearch._backtracking import Backtracking
from trainloop.linesearch._hager_zhang import HagerZhang
from trainloop.linesearch._more_thuente import MoreThuente
from trainloop.linesearch.line import can_descend, line_through, point
from trainloop.objectives.base import Objective
from trainloop.types import Scalar
from trainloop.vectors import linalg


class LineSearch(NamedTuple):
    """Where a line search ended.

    Attributes:
        t: [] step length; 0 when no lower point was found.
        x: [n] x + t d.
        f: [] f at this x.
        g: [n] gradient at this x.
        evaluations: int32 [] how often the objective was called.
        success: bool [] whether the conditions hold at t.
        unbounded: bool [] whether f was -inf at a trial; the point is the lowest one before it.

    Examples:
        >>> bowl, x = FunctionObjective(lambda x: tf.reduce_sum(x**2)), tf.constant([3.0, 4.0])
        >>> f, g = bowl.value_and_grad(x)
        >>> uphill = linesearch.armijo(bowl, x, f, g, g, 1.0)
        >>> bool(uphill.success), int(uphill.evaluations), float(uphill.t)
        (False, 0, 0.0)
    """

    t: tf.Tensor
    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    evaluations: tf.Tensor
    success: tf.Tensor
    unbounded: tf.Tensor


def armijo(
    objective: Objective,
    x: tf.Tensor,
    f: Scalar,
    g: tf.Tensor,
    d: tf.Tensor,
    t0: Scalar,
    *,
    decrease: float = 1e-4,
    max_evaluations: int = 20,
) -> LineSearch:
    """Backtracking to a step with sufficient decrease.

        f(x + t d) <= f(x) + decrease t g'd           Nocedal and Wright (2006), equation 3.6a

    Trials call `objective.value`; at the end one call of `objective.value_and_grad` gives the gradient where the
    step leads. Interpolated steps stay between a tenth and a half of the one before. The step never grows.

    Args:
        objective: has `value(x) -> f []` and `value_and_grad(x) -> (f [], g [n])`, both pure in x.
        x: [n] where the search begins.
        f, g: [] and [n], value and gradient there.
        d: [n] direction.
        t0: [] or a float, the first trial.
        decrease: in (0, 1).
        max_evaluations: at least 2, calls of both kinds together.

    Returns:
        a `LineSearch`.

    Raises:
        ValueError: a constant outside of its interval.

    Examples:
        >>> bowl, x = FunctionObjective(lambda x: tf.reduce_sum(x**2)), tf.constant([3.0, 4.0])
        >>> f, g = bowl.value_and_grad(x)
        >>> float(linesearch.armijo(bowl, x, f, g, -g, t0=1.0).t)
        0.5
    """
    limit = checks.integer("max_evaluations", max_evaluations, at_least=2)
    rule = Backtracking(checks.real("decrease", decrease, above=0, below=1), limit)

    def evaluate(state, x_t, g_kept):
        f_t, g_t = tf.cond(
            state.wants_gradient, lambda: objective.value_and_grad(x_t), lambda: (objective.value(x_t), g_kept)
        )
        return f_t, g_t, state.wants_gradient

    return _search(rule, evaluate, x, f, g, d, t0, limit)


def strong_wolfe(
    objective: Objective,
    x: tf.Tensor,
    f: Scalar,
    g: tf.Tensor,
    d: tf.Tensor,
    t0: Scalar,
    *,
    decrease: float = 1e-4,
    curvature: float = 0.9,
    max_evaluations: int = 20,
) -> LineSearch:
    """The search of More and Thuente (1994) for a step that satisfies the strong Wolfe conditions.

        f(x + t d) <= f(x) + decrease t g'd                 Nocedal and Wright (2006), equations 3.7
        |g(x + t d)'d| <= curvature |g'd|

    Near a minimum f no longer resolves the decrease. There the first condition is met also by
    |f(x + t d) - f(x)| <= 100 eps |f(x)|, eps of the dtype, as in the approximate Wolfe conditions of Hager and Zhang
    (2005); it is the slope then that says whether a step is good. So quasi-Newton methods reach gradients at the
    level of rounding, in float32 as in float64, and f may rise by that much.

    Args:
        objective: has `value_and_grad(x) -> (f [], g [n])`, pure in x.
        x: [n] where the search begins.
        f, g: [] and [n], value and gradient there.
        d: [n] direction.
        t0: [] or a float, the first trial. A step grows at most fivefold from trial to trial.
        decrease, curvature: 0 < decrease <= curvature < 1.
        max_evaluations: at least 1.

    Returns:
        a `LineSearch`. It fails where f falls without end, or the interval is down to rounding.

    Raises:
        ValueError: a constant outside of its interval.

    Examples:
        >>> bowl, x = FunctionObjective(lambda x: tf.reduce_sum(x**2)), tf.constant([3.0, 4.0])
        >>> f, g = bowl.value_and_grad(x)
        >>> found = linesearch.strong_wolfe(bowl, x, f, g, -g, t0=0.01, curvature=0.1)
        >>> bool(tf.abs(tf.tensordot(found.g, g, 1)) <= 0.1 * tf.tensordot(g, g, 1))
        True
    """
    rule = MoreThuente(*_wolfe_constants(decrease, curvature))
    limit = checks.integer("max_evaluations", max_evaluations, at_least=1)
    return _search(rule, _with_gradient(objective), x, f, g, d, t0, limit)


def hager_zhang(
    objective: Objective,
    x: tf.Tensor,
    f: Scalar,
    g: tf.Tensor,
    d: tf.Tensor,
    t0: Scalar,
    *,
    decrease: float = 0.1,
    curvature: float = 0.9,
    epsilon: float = 1e-6,
    theta: float = 0.5,
    gamma: float = 0.66,
    rho: float = 5.0,
    max_evaluations: int = 50,
) -> LineSearch:
    """The search of Hager and Zhang (2005), section 4, for a step that satisfies the (approximate) Wolfe conditions.

    With phi(t) = f(x + t d), either of

        T1:  phi(t) - phi(0) <= decrease t phi'(0)  and  phi'(t) >= curvature phi'(0)
        T2:  (2 decrease - 1) phi'(0) >= phi'(t) >= curvature phi'(0)  and  phi(t) <= phi(0) + epsilon |phi(0)|

    T2 compares slopes, which near a minimum are known to the precision of the dtype, whereas a decrease is known to
    its square root only. Under T2 f may rise, by no more than epsilon |f|.

    Args:
        objective: has `value_and_grad(x) -> (f [], g [n])`, pure in x.
        x: [n] where the search begins.
        f, g: [] and [n], value and gradient there.
        d: [n] direction.
        t0: [] or a float, the first trial.
        decrease, curvature: delta and sigma of the paper, 0 < decrease < 1/2, decrease <= curvature < 1.
        epsilon: at least 0; taken to be no less than 100 eps of the dtype.
        theta: in (0, 1), where U3 divides; 0.5 bisects.
        gamma: in (0, 1), the least shrinkage of the interval in an iteration.
        rho: above 1, growth of the step until there is an interval.
        max_evaluations: at least 1.

    Returns:
        a `LineSearch`. It fails where f falls without end, or the interval is down to rounding.

    Raises:
        ValueError: a constant outside of its interval.

    Examples:
        >>> cosh, x = FunctionObjective(lambda x: tf.reduce_sum(tf.cosh(x))), tf.constant([1.0, 2.0])
        >>> f, g = cosh.value_and_grad(x)
        >>> bool(linesearch.hager_zhang(cosh, x, f, g, -g, t0=1.0).f < f)
        True
    """
    checks.real("decrease", decrease, above=0, below=0.5)
    rule = HagerZhang(
        *_wolfe_constants(decrease, curvature),
        checks.real("epsilon", epsilon, at_least=0),
        checks.real("theta", theta, above=0, below=1),
        checks.real("gamma", gamma, above=0, below=1),
        checks.real("rho", rho, above=1),
    )
    limit = checks.integer("max_evaluations", max_evaluations, at_least=1)
    return _search(rule, _with_gradient(objective), x, f, g, d, t0, limit)


def _wolfe_constants(decrease: float, curvature: float) -> tuple[float, float]:
    decrease = checks.real("decrease", decrease, above=0, below=1)
    return decrease, checks.real("curvature", curvature, at_least=decrease, below=1)


def _with_gradient(objective):
    """An `evaluate` for `_search` that asks for value and gradient every time."""

    def evaluate(_state, x_t, _g_kept):
        return *objective.value_and_grad(x_t), True

    return evaluate


class _Best(NamedTuple):
    """The lowest point whose gradient is known, or the accepted one. Its x is x + t d."""

    t: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor


def _search(rule, evaluate, x, f, g, d, t0, max_evaluations):
    """The loop of all searches: two vectors are carried, g of the best point and of the trial.

    Args:
        rule: has `begin(line, t0) -> state` and `advance(line, state, trial) -> state`, pure functions of scalars;
            a state has `t`, `accepted` and `done`.
        evaluate: function (state, x_t [n], g_kept [n]) -> (f [], g [n], known), where `known` says that g is
            the gradient at x_t and not merely g_kept.
        x, f, g, d, t0: where from, which way and how far first.
        max_evaluations: at least 1.

    Returns:
        a `LineSearch`.
    """
    x = tf.convert_to_tensor(x)
    f, g, d, t0 = (_as_tensor(value, x.dtype) for value in (f, g, d, t0))
    unit, d = _in_range(g, d)
    t0 = t0 * unit
    line = line_through(x, f, g, d)
    state = rule.begin(line, tf.minimum(t0, line.longest))
    state = state._replace(done=~can_descend(line, t0))

    def unfinished(evaluations, state, _best, unbounded):
        return ~state.done & (evaluations < max_evaluations) & ~unbounded

    def step(evaluations, state, best, _):
        f_t, g_t, known = evaluate(state, linalg.along(x, state.t, d), best.g)
        g_t = tf.ensure_shape(g_t, x.shape)
        f_t = tf.cast(f_t, x.dtype)
        trial = point(state.t, f_t, tf.tensordot(g_t, d, 1))
        state = rule.advance(line, state, trial)
        better = state.accepted | (known & (trial.f < best.f))
        # A conditional and not tf.where: it hands a vector on instead of copying it.
        best = tf.cond(better, lambda: _Best(trial.t, trial.f, g_t), lambda: best)
        return evaluations + 1, state, best, tf.equal(f_t, float("-inf"))

    start = (tf.constant(0), state, _Best(line.origin.t, f, g), tf.constant(False))
    evaluations, state, best, unbounded = tf.while_loop(unfinished, step, start)
    # Not x + 0 d, which is NaN where d is infinite.
    x_new = tf.cond(best.t > 0, lambda: linalg.along(x, best.t, d), lambda: x)
    return LineSearch(best.t / unit, x_new, best.f, best.g, evaluations, state.accepted, unbounded)


def _in_range(g, d):
    """(unit [], d / unit [n]): a power of two by which d is divided where g'd would leave the range of the dtype.

    A gradient of 1e200 has a finite slope along -g / |g|, but not along -g. Everywhere else unit is 1.
    """
    slope = tf.abs(tf.tensordot(g, d, 1))
    length = linalg.largest(d)
    safe = (slope > linalg.tiny(d.dtype) / linalg.eps(d.dtype)) & (slope < d.dtype.max * linalg.eps(d.dtype))
    unit = tf.where(safe | ~tf.math.is_finite(length), tf.ones_like(slope), linalg.power_of_two(length))
    return unit, tf.cond(safe, lambda: d, lambda: d / unit)


def _as_tensor(value, dtype):
    # A Python float becomes a tensor of that dtype at once; tf.cast alone would send it through float32.
    return tf.cast(tf.convert_to_tensor(value, dtype_hint=dtype), dtype)


# By name, as optimizers take them for an argument.
SEARCHES: dict[str, Callable[..., LineSearch]] = {
    "strong_wolfe": strong_wolfe,
    "hager_zhang": hager_zhang,
    "armijo": armijo,
}
