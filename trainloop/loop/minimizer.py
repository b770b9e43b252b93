"""Minimise a function of one vector with the optimizers of the loop: no network, no data.

What is compiled is kept for the next call that is like this one, see `kept_runs`; how it runs is in `minimization`.
"""

import contextlib
import gc
import typing
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.loop import kept_runs
from trainloop.loop.minimization import Minimization
from trainloop.loop.minimize_result import Iterate, MinimizeResult
from trainloop.loop.minimizer_phases import in_phases
from trainloop.loop.phases import Phase
from trainloop.loop.termination import StoppingRule
from trainloop.loop.tracebacks import filtered
from trainloop.objectives.base import Objective
from trainloop.objectives.closure import ClosureObjective
from trainloop.objectives.function import FunctionObjective
from trainloop.objectives.model import ModelObjective
from trainloop.objectives.placement import kept
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.types import Evaluated, Variable
from trainloop.vectors import linalg
from trainloop.vectors.layout import native


@filtered
def minimize(
    fun: Callable[..., tf.Tensor | Evaluated | dict[str, tf.Tensor]] | Objective,
    x0: tf.Tensor | np.ndarray | Sequence[float] | Sequence[Variable],
    optimizer: WholeVectorOptimizer | list[Phase] | tuple[Phase, ...],
    *,
    max_steps: int = 1000,
    gtol: float | None = None,
    ftol: float | None = None,
    xtol: float | None = None,
    f_target: float | None = None,
    max_evaluations: int | None = None,
    callback: Callable[[Iterate], typing.Any] | None = None,
    state: dict[str, np.ndarray] | None = None,
) -> MinimizeResult:
    """A minimiser of `fun` near `x0`.

    Args:
        fun: function of a tensor x [n] returning f [], or (f [], g [n]), in TensorFlow operations (or
            `tf.numpy_function`, with (f, g); f alone is enough for optimizers without gradients), or an `Objective`.
            For variables as x0 a function without arguments that reads them, returning f or a dict of terms, or a
            `ClosureObjective`.
        x0: [n], floating; its dtype is the precision of everything. Or a list of variables, `tf.Variable`s and Keras
            variables, where it begins at what they hold; they hold `result.x` afterwards.
        optimizer: a `GlobalVectorOptimizer` or `GlobalObjectiveOptimizer`. It is not changed: a new one with its
            settings is taken, unless it is unused and `get_config` leaves out an argument of its constructor. Or a list
            of `Phase`s, one after another: each begins with an evaluation where the one before has ended. A gtol that
            is given, f_target and max_evaluations end the run, ftol and xtol a phase. History has a column "phase".
        max_steps: at most so many steps.
        gtol: the run ends where no |g_i| is larger. None for eps^(1/3), 6e-6 in float64 and 5e-3 in float32; where f
            and g at x0 are much smaller or larger than 1, for eps^(2/3) of the larger one, so that the unit of f does
            not decide how precise x is. See `trainloop.loop.termination`.
        ftol, xtol, f_target, max_evaluations: see `StoppingRule`; evaluations are checked between steps.
        callback: function of an `Iterate`, called after every step; a true result ends the run. It costs a return to
            Python per step.
        state: `result.state` of an earlier run with the same optimizer and as many variables, to continue with what it
            remembered; None to begin anew.

    A call that is like an earlier one (function, length and dtype of x, optimizer, all tests but gtol) compiles
    nothing. Functions are compared by their code and by all that they read, so that what has changed is compiled anew,
    see `trainloop.loop.fingerprint`. As in `tf.function`, random numbers of Python and NumPy are drawn once. What is
    kept for that takes at most 64 MiB.

    Returns:
        `MinimizeResult`. A failure on the way is a negative status. x is finite then too; f is NaN or +inf where a
        step led to a point at which it is, as an optimizer without a line search may do. A point at which f = -inf ends
        the run with `Status.UNBOUNDED`, and x and f are those of the last finite point.

    Raises:
        ValueError: an argument of the wrong kind; x0 with NaN, of another shape than [n], or of an integer dtype;
            f or g of the wrong shape or dtype, or not finite at x0.

    Examples:
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> minimize(rosenbrock, [-1.2, 1.0], LBFGS()).x.round(6)
        array([1., 1.])
    """
    if callback is not None and not callable(callback):
        raise ValueError(f"callback must be a function of an Iterate, received {callback!r}")
    if tf.inside_function():
        raise ValueError("minimize compiles a loop of its own; call it outside of tf.function, or step the optimizer")
    _check_order(fun, x0)
    max_steps = checks.integer("max_steps", max_steps, at_least=1)
    tests = {"gtol": gtol, "ftol": ftol, "xtol": xtol, "f_target": f_target, "max_evaluations": max_evaluations}
    options = {"max_steps": max_steps, "callback": callback, "state": state, **tests}
    if isinstance(optimizer, (list, tuple)):
        return in_phases(minimize, fun, x0, optimizer, **options)
    if _are_variables(x0):
        return _over_variables(fun, x0, optimizer, options)
    objective = fun if isinstance(fun, Objective) else FunctionObjective(fun)
    x0, method = _checked_start(x0), _checked_optimizer(optimizer)
    if x0.shape[0] >= linalg.LONG:
        gc.collect()  # the vectors of an earlier call, which TensorFlow leaves in reference cycles
    tests["gtol"] = _checked_gtol(gtol, method)
    rule = StoppingRule.checked(x0.dtype, **tests)
    key = _key(objective, method, rule, x0)
    run = kept_runs.take(key)
    if run is None:
        own = method.fresh() if method.built or key.value else method
        run = Minimization(objective, x0.shape[0], x0.dtype, own, rule)
    with _put_back(objective):
        run.start(x0, None if tests["gtol"] is None else rule.gtol, state)
        del x0  # lest it be one vector more than the run needs
        result = run.run(max_steps, callback)
    kept_runs.keep(key, run, run.nbytes)
    return result


def _checked_gtol(gtol, optimizer):
    """The gtol of an optimizer: None for the default, `NO_TEST` where it looks at no gradient.

    Raises:
        ValueError: one is given for such an optimizer.
    """
    if optimizer.uses_gradient:
        return 0.0 if gtol is None and optimizer.ends_by_itself else gtol
    if gtol is not None:
        raise ValueError(
            f"{type(optimizer).__name__} uses no gradient, so gtol must be left out, received {gtol!r}; use "
            "f_target, ftol or max_evaluations"
        )
    return StoppingRule.NO_TEST


def _over_variables(fun, variables, optimizer, options):
    """`minimize` from what the variables hold; they hold the result afterwards."""
    variables = [variables] if isinstance(variables, keras.Variable) else variables
    key = kept_runs.Key("closure", fun, [native(v) for v in variables])
    closure = kept_runs.take(key) or _of_variables(fun, variables)
    found = minimize(closure, closure.vector.read(), optimizer, **options)
    closure.vector.assign(tf.constant(found.x))
    if not getattr(closure, "written", ()):
        kept_runs.keep(key, closure, 0)
    return found


def _put_back(objective):
    """A context in which an objective may have trial points in its variables; they are put back whatever happens.

    Compiled code puts them back itself, but not where an operation fails at a trial point.
    """
    if not isinstance(objective, ModelObjective):
        return contextlib.nullcontext()
    return kept([*objective.vector.native, *objective.written])


def _key(objective, optimizer, rule, x0):
    """What a compiled run depends on; gtol is set by every call."""
    settings = optimizer.settings()
    compiled = (rule.ftol, rule.xtol, rule.f_target, rule.max_evaluations, x0.shape[0], x0.dtype)
    return kept_runs.Key(*([] if settings is None else [objective, settings, compiled]))


def _are_variables(x0):
    several = x0 if isinstance(x0, (list, tuple)) else [x0]
    kinds = [isinstance(one, keras.Variable) or (isinstance(one, tf.Variable) and x0 is not one) for one in several]
    if any(kinds) and not all(kinds):
        raise ValueError("x0 must be variables only or numbers only, received both; make variables of all, or none")
    return bool(kinds) and all(kinds)


def _of_variables(fun, variables):
    """The objective of a closure over variables, or the one that was given.

    Raises:
        ValueError: that is one of other variables.
    """
    objective = fun if isinstance(fun, Objective) else ClosureObjective(fun, variables)
    vector = getattr(objective, "vector", None)
    if vector is None or [id(v) for v in vector.native] != [id(native(v)) for v in variables]:
        raise ValueError(
            "the objective is not one of these variables in this order; pass ClosureObjective(closure, variables), or "
            "the function alone"
        )
    return objective


def _check_order(fun, x0):
    """Raise where arguments are swapped: what is wrong with each alone would not say so."""
    if isinstance(x0, WholeVectorOptimizer) or (callable(x0) and not callable(fun) and not isinstance(fun, Objective)):
        raise ValueError(
            f"expected minimize(fun, x0, optimizer), received {type(fun).__name__} as fun and {type(x0).__name__} as "
            "x0; put the arguments into this order"
        )


def _checked_optimizer(optimizer):
    """The optimizer, if it is one.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(optimizer, WholeVectorOptimizer):
        kind = optimizer.__name__ + " itself" if isinstance(optimizer, type) else type(optimizer).__name__
        raise ValueError(
            f"optimizer must be a GlobalVectorOptimizer or GlobalObjectiveOptimizer such as LBFGS(), received {kind}"
        )
    return optimizer


def _checked_start(x0):
    """x0 as a finite floating tensor [n]."""
    given = x0
    try:
        x0 = tf.convert_to_tensor(x0 if tf.is_tensor(x0) else np.asarray(x0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"x0 must be a vector of numbers, received {x0!r}") from error
    if x0.shape.rank != 1 or x0.shape[0] == 0:
        advice = "pass a list of variables, [variable]" if isinstance(given, tf.Variable) else "flatten it"
        raise ValueError(f"x0 must have shape [n] with n at least 1, received {x0.shape}; {advice}")
    if x0.dtype not in (tf.float32, tf.float64):
        raise ValueError(f"x0 must be float32 or float64, received {x0.dtype.name}; write 1.0 instead of 1, or cast it")
    bad = int(tf.math.count_nonzero(~tf.math.is_finite(x0)))
    if bad:
        raise ValueError(f"x0 must be finite, received {bad} of {x0.shape[0]} entries NaN or infinite")
    return x0
