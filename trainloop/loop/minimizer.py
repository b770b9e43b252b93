"""Minimise a function of one vector with the optimizers of the loop: no network, no data.

Steps run in compiled blocks of about half a second. f and g at the point where a step ended are handed on to the
next, so a line search method evaluates nothing twice. What is compiled is kept for the next call that is like this one,
see `kept_runs`.
"""

import dataclasses
import gc
import time
import typing
import weakref
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.loop import kept_runs
from trainloop.loop.minimizer_phases import in_phases
from trainloop.loop.pace import Pace
from trainloop.loop.phases import Phase
from trainloop.loop.termination import StoppingRule
from trainloop.objectives.base import Objective
from trainloop.objectives.closure import ClosureObjective
from trainloop.objectives.counting import KINDS, Counted, Evaluations
from trainloop.objectives.function import FunctionObjective, ValuesOnly
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.status import Status
from trainloop.types import Evaluated, Path, Variable
from trainloop.vectors import linalg
from trainloop.vectors.layout import VariableVector, native

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, repr=False)
class MinimizeResult:
    """Where a minimisation ended and why.

    Attributes:
        x: [n], the last point; the best one for methods that keep it (`BestSoFar`).
        f, grad_norm: the function and the Euclidean norm of its gradient there; NaN for methods without gradients.
        status: a `Status`; negative ones are failures.
        message: its sentence.
        steps: how many were taken.
        evaluations: dict of "f", "gradient", "Hv", "Gv": how many of each, one for the gradient at a best point that
            was kept (`BestSoFar`) included.
        history: one array entry per step under "step", "f", "grad_norm", every scalar of the method's state, and
            "evaluations/f" and so on. f and gradient belong to the point *before* the step, evaluations include it.
        last_state: from which `state` is read.

    Example:
        >>> result = minimize(lambda x: tf.reduce_sum(x**2), [3.0, 4.0], SimpleGD(0.5), gtol=1e-6)
        >>> result.steps, result.f, result.history["f"]
        (1, 0.0, array([25.]))
    """

    x: np.ndarray
    f: float
    grad_norm: float
    status: Status
    message: str
    steps: int
    evaluations: dict[str, int]
    history: dict[str, np.ndarray]
    last_state: typing.Any = None

    @property
    def success(self) -> bool:
        """Whether the run ended because a tolerance, `f_target` or a certificate was reached."""
        return self.status.success

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the optimizer remembers at the end, as arrays by name: `minimize(..., state=result.state)` goes on with
        it. As long as the result lives they take the memory that `optimizer.memory_plan(n)` says."""
        return self.last_state.read()

    def plot(self, path: Path | None = None, title: str = "") -> "Figure":
        """f, the gradient norm and the optimizer's own scalars over the steps, as a figure.

        Args:
            path: of an image file to write; its suffix says of which kind. None writes nothing.
            title: above the figure.

        Returns:
            A Matplotlib figure, which a notebook shows.
        """
        from trainloop.plots.curves import draw_curves

        figure = draw_curves(self, title)
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.evaluations.items() if count)
        x = np.array2string(self.x, precision=6, threshold=6, separator=", ")
        return (
            f"MinimizeResult({self.status.name}: {self.message}; f = {self.f:.9g}, |g| = {self.grad_norm:.3g}; "
            f"x = {x}; {self.steps} steps; evaluations: {counts}; history: {', '.join(self.history)})"
        )


class Iterate(typing.NamedTuple):
    """What a callback sees after a step: its number, and x [n], f and the norm of g where it ended.

    Example:
        >>> def far_enough(iterate):
        ...     return iterate.step > 3 and iterate.grad_norm < 1
        ...
        >>> minimize(lambda x: x[0] ** 2, [8.0], SimpleGD(0.25), callback=far_enough).status.name
        'STOPPED'
    """

    step: int
    x: np.ndarray
    f: float
    grad_norm: float


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
            `tf.numpy_function`, with (f, g); f alone is enough for methods without gradients); or an `Objective`. For
            variables as x0 a function without arguments that reads them, returning f or a dict of terms, or a
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
        ftol, xtol, f_target, max_evaluations: see `StoppingRule`; evaluations are looked at between steps.
        callback: function of an `Iterate`, called after every step; a true result ends the run. It costs a return to
            Python per step.
        state: `result.state` of an earlier run with the same optimizer and as many variables, to go on with what it
            remembered; None to begin anew.

    A call that is like an earlier one (function, length and dtype of x, optimizer, all tests but gtol) compiles
    nothing. Functions are compared by their code and by all that they read, so that what has changed is compiled anew,
    see `trainloop.loop.fingerprint`. As in `tf.function`, random numbers of Python and NumPy are drawn once. What is
    kept for that takes at most 64 MiB.

    Returns:
        `MinimizeResult`. A failure on the way is a negative status. x is finite then too; f is NaN or +inf where a
        step led to a point at which it is, as a method without a line search may do. A point at which f = -inf ends
        the run with `Status.UNBOUNDED`, and x and f are those of the last finite point.

    Raises:
        ValueError: an argument of the wrong kind; x0 with NaN, of another shape than [n], or of an integer dtype;
            f or g of the wrong shape or dtype, or not finite at x0.

    Example:
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> minimize(rosenbrock, [-1.2, 1.0], LBFGS()).x.round(6)
        array([1., 1.])
    """
    if callback is not None and not callable(callback):
        raise ValueError(f"callback must be a function of an Iterate, received {callback!r}")
    if tf.inside_function():
        raise ValueError("minimize compiles a loop of its own; call it outside of tf.function, or step the optimizer")
    _check_order(fun, x0)
    if isinstance(optimizer, (list, tuple)):
        tests = {"gtol": gtol, "ftol": ftol, "xtol": xtol, "f_target": f_target, "max_evaluations": max_evaluations}
        max_steps = checks.integer("max_steps", max_steps, at_least=1)
        return in_phases(minimize, fun, x0, optimizer, max_steps=max_steps, callback=callback, state=state, **tests)
    if _are_variables(x0):
        closure = _of_variables(fun, x0)
        found = minimize(
            closure,
            closure.vector.read(),
            optimizer,
            max_steps=max_steps,
            gtol=gtol,
            ftol=ftol,
            xtol=xtol,
            f_target=f_target,
            max_evaluations=max_evaluations,
            callback=callback,
            state=state,
        )
        closure.vector.assign(tf.constant(found.x))
        return found
    objective = fun if isinstance(fun, Objective) else FunctionObjective(fun)
    x0 = _checked_start(x0)
    max_steps = checks.integer("max_steps", max_steps, at_least=1)
    if x0.shape[0] >= linalg.LONG:
        gc.collect()  # the vectors of an earlier call, which TensorFlow leaves in reference cycles
    method = _checked_optimizer(optimizer)
    if not method.uses_gradient:
        if gtol is not None:
            raise ValueError(
                f"{type(method).__name__} uses no gradient, so gtol must be left out, received {gtol!r}; use "
                "f_target, ftol or max_evaluations"
            )
        gtol = StoppingRule.NO_TEST
    if gtol is None and method.ends_by_itself:
        gtol = 0.0
    rule = StoppingRule.checked(x0.dtype, gtol, ftol, xtol, f_target, max_evaluations)
    key = _key(objective, method, rule, x0)
    run = kept_runs.take(key)
    if run is None:
        own = method.fresh() if method.built or key.value else method
        run = _Minimization(objective, x0.shape[0], x0.dtype, own, rule)
    run.start(x0, gtol if gtol is None else rule.gtol, state)
    del x0  # lest it be one vector more than the run needs
    result = run.run(max_steps, callback)
    kept_runs.keep(key, run, run.nbytes)
    return result


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


class _Minimization:
    """One call of `minimize` at a time, compiled once.

    Args:
        objective: what to minimise.
        n, dtype: of x.
        optimizer: an unbuilt one, which is this object's own.
        rule: a `StoppingRule`; its gtol is set by every call.
    """

    def __init__(self, objective, n, dtype, optimizer, rule):
        self._optimizer, self._evaluations = optimizer, Evaluations()
        counted = Counted(objective, self._evaluations)
        self._objective = counted if optimizer.uses_gradient else ValuesOnly(counted)
        self._gtol = tf.Variable(0.0, dtype=dtype, trainable=False, name="gtol")
        self._rule = dataclasses.replace(rule, gtol=self._gtol)
        self._evaluate = _compiled(self._objective.value_and_grad, tf.TensorSpec([n], dtype))
        self._vector = None  # once f and g at the first x0 are known to be good
        self._last = lambda: None
        self._pace = Pace()

    def start(self, x0, gtol, state):
        """Go to x0, and begin anew there or with a state.

        Args:
            x0: [n].
            gtol: number, or None for the default.
            state: of an earlier result, or None.
        """
        self._release()
        self._evaluations.variable.assign(tf.zeros_like(self._evaluations.variable))
        f, g = _first_values(self._evaluate, x0)
        self._gtol.assign(StoppingRule.default_gtol(f, g) if gtol is None else gtol)
        if self._vector is None:
            self._build(x0, f, g)
        else:
            for variable, value in zip((*self._vector.variables, self._f, self._g), (x0, f, g), strict=True):
                variable.assign(value)
            self._optimizer.restart()
        if state is not None:
            _recall(self._optimizer, state)

    def _build(self, x0, f, g):
        variable = tf.Variable(x0, name="x")
        self._optimizer.build([variable])
        self._vector = VariableVector([variable])
        # f and g where x is. In variables and not handed from block to block: what a function is called with lives as
        # long as the call.
        self._f, self._g = tf.Variable(f, name="f"), tf.Variable(g, name="g")
        self._columns = _columns(self._optimizer.log_dtypes())
        self._block = _compiled(self._steps, tf.TensorSpec([], tf.int32))
        self._objective = None  # the graphs are all that is needed of it, however long they are kept

    def _release(self):
        """Let the last result have its state for itself: the variables that hold it are written into."""
        last = self._last()
        if last is not None:
            last.read()

    @property
    def nbytes(self):
        """Of x, g and the state."""
        return self._optimizer.state_nbytes + 2 * self._g.dtype.size * self._g.shape[0]

    def run(self, max_steps, callback):
        began = int(self._optimizer.iterations)
        status = Status(int(self._rule.at_point(*self._here())))
        pace, rows = self._pace if callback is None else Pace(1), []
        while status == Status.RUNNING:
            k = min(pace.limit(), max_steps - sum(map(len, rows)))
            status, block = self._timed_block(pace, k)
            rows.append(block)
            steps = sum(map(len, rows))
            if callback and callback(self._iterate(steps)) and status == Status.RUNNING:
                status = Status.STOPPED
            if status == Status.RUNNING and steps >= max_steps:
                status = Status.FINISHED
        return self._result(status, np.concatenate([np.zeros([0, len(self._columns)]), *rows]), began)

    def _timed_block(self, pace, k):
        began = time.perf_counter()
        status, rows = self._block(tf.constant(k))
        rows = rows.numpy()
        pace.observe(len(rows), time.perf_counter() - began)
        return Status(int(status)), rows

    def _iterate(self, step):
        f, g = self._here()
        return Iterate(step, self._vector.read().numpy(), float(f), float(linalg.norm(g)))

    def _result(self, status, rows, began):
        x, (f, g) = self._vector.read(), self._here()
        best = self._optimizer.best_point()
        if best is not None and not f <= best[1]:  # f may be NaN
            x = best[0]
            f, g = self._evaluate(x)
        columns = {name: rows[:, i].astype(dtype) for i, (name, dtype) in enumerate(self._columns.items())}
        grad_norm = float(linalg.norm(g))
        if not self._optimizer.uses_gradient:
            grad_norm = columns["grad_norm"][:] = np.nan
        last = _LastState(self._optimizer)
        self._last = weakref.ref(last)
        return MinimizeResult(
            x=x.numpy(),
            f=float(f),
            grad_norm=grad_norm,
            status=status,
            message=status.sentence,
            steps=int(self._optimizer.iterations) - began,
            evaluations=self._evaluations.as_dict(),
            history={"step": 1 + np.arange(len(rows)), **columns},
            last_state=last,
        )

    # ---- compiled ----

    def _here(self):
        """(f [], g [n]) where x is."""
        return tf.convert_to_tensor(self._f), tf.convert_to_tensor(self._g)

    def _steps(self, k):
        rows = tf.TensorArray(tf.float64, k, element_shape=[len(self._columns)])

        def wanted(i, status, _rows):
            return (i < k) & tf.equal(status, Status.RUNNING)

        def step(i, _status, rows):
            status, row = self._one_step()
            return i + 1, status, rows.write(i, row)

        taken, status, rows = tf.while_loop(wanted, step, (tf.constant(0), tf.constant(Status.RUNNING, tf.int32), rows))
        return status, rows.stack()[:taken]

    def _one_step(self):
        x, (f, g) = self._vector.read(), self._here()
        status, logs, evaluated = self._optimizer.step(self._objective, (f, g))
        x_new = self._vector.read()
        f_new, g_new = self._objective.value_and_grad(x_new) if evaluated is None else evaluated
        self._keep(x, f_new, g_new)
        evaluations = self._evaluations.read()
        by_rule = self._rule.between(x, f, x_new, f_new, g_new, evaluations["f"])
        status = tf.where(status == Status.RUNNING, by_rule, status)
        logs = {**logs, "f": logs["loss"], **{f"evaluations/{kind}": count for kind, count in evaluations.items()}}
        return status, tf.stack([tf.cast(logs[name], tf.float64) for name in self._columns])

    def _keep(self, x, f_new, g_new):
        """f and g of the point where a step ended. Where f = -inf there, x goes back to the last finite point.

        Args:
            x: [n] before the step.
            f_new, g_new: [], [n] after it.
        """

        def go_on():
            self._f.assign(f_new)
            self._g.assign(g_new)
            return True

        def go_back():
            self._vector.assign(x)
            return False

        tf.cond(tf.equal(f_new, -np.inf), go_back, go_on)


def _columns(logged):
    """Names and dtypes of a row of the history."""
    own = {"step": np.int64} | {f"evaluations/{kind}": np.int64 for kind in KINDS}
    taken = [name for name in logged if name in own or name == "f"]
    if taken:
        raise ValueError(f"the history has a column {taken[0]!r} of its own; rename the scalar of the method's state")
    renamed = {"f" if name == "loss" else name: dtype for name, dtype in logged.items()}
    return renamed | {name: dtype for name, dtype in own.items() if name != "step"}


def _compiled(function, *specs):
    """The function, traced once for such arguments. TensorFlow warns of a tf.function per call of `minimize`."""
    return tf.function(function, autograph=False).get_concrete_function(*specs)


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


class _LastState:
    """What an optimizer remembers at the end of a run; a copy is made only when the variables are needed again."""

    def __init__(self, optimizer):
        self._optimizer, self._arrays = optimizer, None

    def read(self):
        """Arrays by name."""
        if self._arrays is None:
            self._arrays, self._optimizer = _remembered(self._optimizer), None
        return self._arrays

    def __getstate__(self):
        return {"_arrays": self.read(), "_optimizer": None}


def _remembered(optimizer):
    """What the optimizer remembers, as NumPy arrays by name; learning rates are settings."""
    saved = {}
    optimizer.save_own_variables(saved)
    return {name: np.array(array) for name, array in saved.items() if not _is_rate(name)}


def _recall(optimizer, state):
    """Let an optimizer remember what `_remembered` returned."""
    if not isinstance(state, dict):
        raise ValueError(
            f"state must be that of an earlier result, as in state=result.state, received {type(state).__name__}"
        )
    now = {}
    optimizer.save_own_variables(now)
    try:
        optimizer.load_own_variables(state | {name: array for name, array in now.items() if _is_rate(name)})
    except ValueError as error:
        raise ValueError(
            f"state does not fit ({error}); pass the state of a run of this optimizer with as many variables"
        ) from error


def _is_rate(name):
    return name.rpartition(".")[2] == "learning_rate" and not name.startswith("state.")


def _checked_start(x0):
    """x0 as a finite floating tensor [n]."""
    try:
        x0 = tf.convert_to_tensor(x0 if tf.is_tensor(x0) else np.asarray(x0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"x0 must be a vector of numbers, received {x0!r}") from error
    if x0.shape.rank != 1 or x0.shape[0] == 0:
        raise ValueError(f"x0 must have shape [n] with n at least 1, received {x0.shape}; flatten it")
    if x0.dtype not in (tf.float32, tf.float64):
        raise ValueError(f"x0 must be float32 or float64, received {x0.dtype.name}; write 1.0 instead of 1, or cast it")
    bad = int(tf.math.count_nonzero(~tf.math.is_finite(x0)))
    if bad:
        raise ValueError(f"x0 must be finite, received {bad} of {x0.shape[0]} entries NaN or infinite")
    return x0


def _first_values(evaluate, x0):
    """f and g at x0. What is wrong with them fails here, before a loop would only say which step failed.

    Compiled: what is evaluated eagerly leaves its memory in another pool than the one the loop takes from.
    """
    try:
        f, g = evaluate(x0)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"fun must return f of shape [] and g of shape {x0.shape}, received other shapes: {error.message}"
        ) from error
    for name, value, shape in (("f", f, []), ("g", g, x0.shape)):
        if not value.shape.is_compatible_with(shape):
            raise ValueError(f"{name} must have shape {list(shape)}, received {list(value.shape)}")
        if value.dtype != x0.dtype:
            raise ValueError(f"{name} must have the dtype of x, {x0.dtype.name}, received {value.dtype.name}")
        if not bool(tf.reduce_all(tf.math.is_finite(value))):
            raise ValueError(f"{name} is not finite at x0; start where the function and its gradient are finite")
    return f, g
