"""Where a minimisation ended: the result, what a callback sees on the way, and what the optimizer remembers."""

import dataclasses
import typing

import numpy as np

from trainloop.results import Plotted
from trainloop.status import Status


@dataclasses.dataclass(frozen=True, repr=False)
class MinimizeResult(Plotted):
    """Where a minimisation ended and why.

    Attributes:
        x: [n], the last point; the best one for optimizers that keep it (`BestSoFar`).
        f, grad_norm: the function and the Euclidean norm of its gradient there; NaN for optimizers without gradients.
        status: a `Status`; negative ones are failures.
        message: what the status means.
        steps: how many were taken.
        evaluations: dict of "f", "gradient", "Hv", "Gv": how many of each, one for the gradient at a best point that
            was kept (`BestSoFar`) included.
        history: one array entry per step under "step", "f", "grad_norm", every scalar of the optimizer's state, and
            "evaluations/f" and so on. f and gradient belong to the point *before* the step, evaluations include it.
        last_state: from which `state` is read.

    Examples:
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
        """What the optimizer remembers at the end, as arrays by name: `minimize(..., state=result.state)` continues
        with it. As long as the result lives they take the memory that `optimizer.memory_plan(n)` says."""
        return self.last_state.read()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.evaluations.items() if count)
        x = np.array2string(self.x, precision=6, threshold=6, separator=", ")
        return (
            f"MinimizeResult({self.status.name}: {self.message}; f = {self.f:.9g}, |g| = {self.grad_norm:.3g}; "
            f"x = {x}; {self.steps} steps; evaluations: {counts}; history: {', '.join(self.history)})"
        )


class Iterate(typing.NamedTuple):
    """What a callback sees after a step: its number, and x [n], f and the norm of g where it ended.

    Examples:
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


class LastState:
    """What an optimizer remembers at the end of a run; a copy is made only when the variables are needed again."""

    def __init__(self, optimizer):
        self._optimizer, self._arrays = optimizer, None

    def read(self):
        """Arrays by name."""
        if self._arrays is None:
            self._arrays, self._optimizer = state_of(self._optimizer), None
        return self._arrays

    def __getstate__(self):
        return {"_arrays": self.read(), "_optimizer": None}


def state_of(optimizer):
    """What the optimizer remembers, as NumPy arrays by name; learning rates are settings."""
    saved = {}
    optimizer.save_own_variables(saved)
    return {name: np.array(array) for name, array in saved.items() if not _is_rate(name)}


def load_state(optimizer, state):
    """Let an optimizer continue from what `state_of` returned for one of its kind."""
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
