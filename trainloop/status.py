"""How a step, a block of steps or a whole run ended: one code, one message.

Inside compiled code a failure is a value, because XLA drops assertions and an exception would lose the steps
before it. So every step returns an int32 code. Zero continues, a positive code ends the run well, a negative
code ends it badly, and a step with a negative code is never committed: the weights stay at the last finite
point. Outside compiled code a negative code becomes a `TrainingError`. All messages stand in this file.
"""

import enum
from typing import Any

import tensorflow as tf


class Status(enum.IntEnum):
    """Codes of a step. Optimizers that can end return one of them as the scalar `"status"` of their state.

    Examples:
        >>> Status(-1).name, Status.NONFINITE_LOSS.failed
        ('NONFINITE_LOSS', True)
        >>> Status.X_TOLERANCE.message
        'x changed by at most xtol'
    """

    RUNNING = 0
    CONVERGED = 1
    FINISHED = 2
    STOPPED = 3
    STALLED = 4
    GRADIENT_TOLERANCE = 5
    F_TOLERANCE = 6
    X_TOLERANCE = 7
    TARGET_REACHED = 8
    EVALUATIONS_SPENT = 9
    CERTIFIED = 10
    NONFINITE_LOSS = -1
    NONFINITE_GRADIENT = -2
    NONFINITE_STEP = -3
    MATRIX_NOT_POSITIVE = -4
    HISTORY_FULL = -5
    CONTRADICTION = -6
    NONFINITE_STATE = -7
    UNBOUNDED = -8

    @property
    def failed(self) -> bool:
        """True for codes that end a run with a `TrainingError`."""
        return self < 0

    @property
    def success(self) -> bool:
        """True for codes of a run that has come to where it was to go: a tolerance, a target, a certificate."""
        return self in _SUCCESSES

    @property
    def message(self) -> str:
        """What the code means and, for failures, what to try."""
        return _MESSAGES[self]


_SUCCESSES = {
    Status.CONVERGED,
    Status.GRADIENT_TOLERANCE,
    Status.F_TOLERANCE,
    Status.X_TOLERANCE,
    Status.TARGET_REACHED,
    Status.CERTIFIED,
}

_MESSAGES = {
    Status.RUNNING: "the run continues",
    Status.CONVERGED: "the step no longer changes the point: converged to the resolution of the dtype",
    Status.FINISHED: "the requested number of epochs or steps is done",
    Status.STOPPED: "a hook or a callback asked the run to stop",
    Status.STALLED: "no smaller f was found: f cannot be resolved better in this dtype, or is flat, or its "
    "gradient is wrong",
    Status.GRADIENT_TOLERANCE: "the largest entry of the gradient is at most gtol",
    Status.F_TOLERANCE: "f changed by at most ftol",
    Status.X_TOLERANCE: "x changed by at most xtol",
    Status.TARGET_REACHED: "f is at most f_target",
    Status.EVALUATIONS_SPENT: "max_evaluations evaluations of f are done",
    Status.CERTIFIED: "the lower bound proves the best f to be the minimum to within gap, provided that f is convex "
    "and the first ball holds a minimiser",
    Status.NONFINITE_LOSS: "the loss is NaN or infinite; check the batch, or take smaller steps",
    Status.NONFINITE_GRADIENT: "the loss is finite but its gradient is NaN or infinite; look for a square root "
    "or a logarithm at zero in the model, or take smaller steps",
    Status.NONFINITE_STEP: "the optimizer proposed weights that are NaN or infinite; look for a division by zero or "
    "the root of a negative number in it (loop.inspect() shows the step), or take smaller steps",
    Status.NONFINITE_STATE: "in the last block of steps the optimizer put NaN into its state, while f and the weights "
    "are finite; look for a division by zero in update (loop.inspect() shows what the next step would do)",
    Status.MATRIX_NOT_POSITIVE: "rounding has made the shared matrix B indefinite (g'Bg <= 0); use float64, "
    "or restart the optimizer from the weights reached",
    Status.HISTORY_FULL: "the history of a factored matrix has reached its capacity; ask for more, or for another "
    "policy, as in storage='factored:1000:restart'",
    Status.CONTRADICTION: "the lower bound has passed the best f: f is not convex, or the first ball holds no "
    "minimiser; take a larger rad, or an optimizer that asks for neither",
    Status.UNBOUNDED: "f is unbounded below: it is -inf at a point on the way; look for a logarithm of zero or a wrong "
    "sign in it, or add a term that grows where f falls",
}


class TrainingError(RuntimeError):
    """A run met a failure inside compiled code. The weights are those of the last finite point.

    Attributes:
        step: the step that failed, counted from 1 over the life of the optimizer.
        status: a `Status`.
        last_loss: the last finite loss, or None.
        result: the `RunResult` up to the failure.
        where: a message that says where the first number arose that is not finite, or None where that is not known:
            of a `tf.data.Dataset` the batch cannot be had again.

    Examples:
        >>> try:
        ...     TrainLoop(model, SimpleGD(1e38), loss).run((x, y), epochs=9)
        ... except TrainingError as error:
        ...     print(error.status.name, error.result.step)
    """

    def __init__(
        self, step: int, status: Status, last_loss: float | None = None, result: Any = None, where: str | None = None
    ) -> None:
        self.step, self.status, self.last_loss, self.result, self.where = step, status, last_loss, result, where
        last = "no step had a finite loss" if last_loss is None else f"last finite loss {last_loss:.6g}"
        found = f" {where[0].upper()}{where[1:]}." if where else ""
        super().__init__(f"step {step} failed ({status.name.lower()}): {status.message}. {last.capitalize()}.{found}")


def first_failure(*conditions_and_codes):
    """The code of the first condition that holds, else RUNNING.

    Args:
        *conditions_and_codes: pairs (bool tensor [], `Status`), most important first.

    Returns:
        int32 tensor [].
    """
    code = tf.constant(Status.RUNNING, tf.int32)
    for condition, status in reversed(conditions_and_codes):
        code = tf.where(condition, tf.constant(status, tf.int32), code)
    return code
