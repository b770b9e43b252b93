"""A minimisation that is compiled once and run any number of times, from any point, with any gtol.

Steps run in compiled blocks of about half a second. f and g at the point where a step ended are handed on to the
next, so a line search method evaluates nothing twice.
"""

import dataclasses
import time
import weakref

import numpy as np
import tensorflow as tf

from trainloop.loop.minimize_result import Iterate, LastState, MinimizeResult, load_state
from trainloop.loop.pace import Pace
from trainloop.loop.termination import StoppingRule
from trainloop.objectives.counting import KINDS, Counted, Evaluations
from trainloop.objectives.function import ValuesOnly
from trainloop.status import Status
from trainloop.vectors import linalg
from trainloop.vectors.layout import VariableVector


class Minimization:
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
            self._begin_anew(x0, f, g)
        if state is not None:
            load_state(self._optimizer, state)

    def _build(self, x0, f, g):
        variable = tf.Variable(x0, name="x")
        self._optimizer.build([variable])
        self._vector = VariableVector([variable])
        # f and g where x is. In variables and not handed from block to block: what a function is called with lives as
        # long as the call.
        self._f, self._g = tf.Variable(f, name="f"), tf.Variable(g, name="g")
        self._columns = _columns(self._optimizer.log_dtypes())
        self._block = _compiled(self._steps, tf.TensorSpec([], tf.int32))
        self._begin_anew = tf.function(self._restart, autograph=False)  # traced if there is a second call
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
        status = Status.RUNNING
        pace, rows = self._pace if callback is None else Pace(1), []
        while status == Status.RUNNING:
            k = min(pace.limit(), max_steps - sum(map(len, rows)))
            status, block = self._timed_block(pace, k)
            rows.append(block)
            steps = sum(map(len, rows))
            if callback and len(block) and callback(self._iterate(steps)) and status == Status.RUNNING:
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
        last = LastState(self._optimizer)
        self._last = weakref.ref(last)
        return MinimizeResult(
            x=x.numpy(),
            f=float(f),
            grad_norm=grad_norm,
            status=status,
            message=status.message,
            steps=int(self._optimizer.iterations) - began,
            evaluations=self._evaluations.as_dict(),
            history={"step": 1 + np.arange(len(rows)), **columns},
            last_state=last,
        )

    # ---- compiled ----

    def _restart(self, x0, f, g):
        for variable, value in zip((*self._vector.variables, self._f, self._g), (x0, f, g), strict=True):
            variable.assign(value)
        self._optimizer.restart()

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

        start = tf.constant(0), self._rule.at_point(*self._here()), rows
        taken, status, rows = tf.while_loop(wanted, step, start)
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
        raise ValueError(
            f"the history has a column {taken[0]!r} of its own; rename the scalar of the optimizer's state"
        )
    renamed = {"f" if name == "loss" else name: dtype for name, dtype in logged.items()}
    return renamed | {name: dtype for name, dtype in own.items() if name != "step"}


def _compiled(function, *specs):
    """The function, traced once for such arguments. TensorFlow warns of a tf.function per call of `minimize`."""
    return tf.function(function, autograph=False).get_concrete_function(*specs)


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
        if not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite at x0; start where the function and its gradient are finite")
    return f, g
