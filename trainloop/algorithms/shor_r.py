"""Shor's r-algorithm: steepest descent in a space that is dilated along the difference of successive gradients.

B is a *space transformation*: with x = B z, the function of z has the gradient B'g. A step goes down along B'g in that
space, past the minimum on the line, so that the gradients g before and g_new after it belong to opposite slopes of a
ravine. Their difference points across the ravine, and across it space is shrunk:

    d   <- -B B'g / |B'g|
    x   <- x + h d + h d + ...                   until g_new'd >= 0, at least once
    xi  <- B'(g_new - g) / |B'(g_new - g)|
    B   <- B (I + (1 / alpha - 1) xi xi')        dilation by beta = 1 / alpha

The step length h adapts: it is multiplied by q1 after a search of one trial, and by q2 at every nh-th trial of a
search. Source: Shor (1985), section 3.6; Shor and Stetsyuk (1997), with the constants of Stetsyuk's program ralgb5
(2017).

Where n is large, h may shrink to nothing before B knows all ravines. So a run consists of *cycles*: one ends when h d
no longer changes x, or when f has not fallen for long. If it made f smaller the next one goes on with the same B, a
longer step, and for large n a slower q1. If not, the run has converged.

On mini-batches a search would run after the minimum of a single batch. So where f is another function than in the last
step, there is one trial; h is multiplied by q1 if it went past the minimum on the line, else by q2^(1/nh); and x stays
if the trial made f larger. Space is dilated all the same: both gradients of the difference belong to one batch.

B'g_new is known after the search, so that a step multiplies with B' once, with B once, and once more for the dilation
of stored numbers.
"""

import typing

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

# A cycle ends when best_f has not become smaller for this many steps and two for each dimension.
_PATIENCE = 50

# The next one begins with a step of this part of the way that the last one made.
_RETURN = 0.01

# In it, h shrinks by q1 at most once for every n / _FEW steps: B needs about n of them to know n ravines.
_FEW = 50


class ShorR(GlobalObjectiveOptimizer):
    """The r-algorithm with an adaptive step.   Shor and Zhurbenko (1971), in the form of Stetsyuk's ralgb5.

    For functions with kinks, where a gradient says little about the function a step away; also for smooth ones in
    narrow curved valleys. Convergence is linear in practice, at a rate that depends on n and hardly on the condition. f
    goes up and down; the best point is kept, and `minimize` returns it. On mini-batches it is the best one of the last
    batch.

    A step evaluates f and g two to three times as a rule, on mini-batches twice. A trial at which f or g is not finite
    halves h and ends the search. The run ends with `Status.CONVERGED` when a cycle has not made f smaller; on
    mini-batches, when h d is too short to change x. Where rounding has ruined B, so that d is no direction of descent
    any more, B becomes the identity again; "restarts" counts that.

    Args:
        alpha: dilation of space, above 1; 2 to 3.
        step_length: h of the first search, positive, in units of x: about the distance to the minimum.
        q1: in (0, 1].
        q2: at least 1.
        nh: at least 1.
        max_evaluations: of f and g in one step, at least 1.
        storage: of B, see `storage_spec`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> kinks = lambda x: tf.abs(x[0]) + 100 * tf.abs(x[1] - tf.abs(x[0]))
        >>> minimize(kinks, [3.0, 1.0], ShorR()).f < 1e-6
        True
    """

    def __init__(
        self,
        alpha: float = 2.3,
        step_length: float = 1.0,
        q1: float = 0.9,
        q2: float = 1.1,
        nh: int = 3,
        max_evaluations: int = 500,
        storage: str = "auto",
        name: str = "shor_r",
        **kwargs: typing.Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.alpha = checks.real("alpha", alpha, above=1)
        self.step_length = checks.real("step_length", step_length, above=0)
        self.q1 = checks.real("q1", q1, above=0, at_most=1)
        self.q2 = checks.real("q2", q2, at_least=1)
        self.nh = checks.integer("nh", nh, at_least=1)
        self.max_evaluations = checks.integer("max_evaluations", max_evaluations, at_least=1)
        self.storage = check_storage(storage)

    def init_state(self, x: tf.Tensor) -> State:
        infinity = tf.constant(float("inf"), x.dtype)
        return {
            "B": SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage=self.storage, updates="dilations"),
            "g": tf.zeros_like(x),
            "image": tf.zeros_like(x),  # B'g of this g
            "best_x": tf.identity(x),
            "best_f": infinity,
            "step_length": tf.zeros([], x.dtype),
            "cycle": {
                "x": tf.identity(x),  # where it began, and the best f of that moment
                "f": infinity,
                "reach": tf.constant(self.step_length, x.dtype),  # length h |d| that its first step shall have; then 0
                "idle": tf.constant(0, tf.int32),  # steps since best_f became smaller
                "number": tf.constant(0, tf.int32),
            },
            "restarts": tf.constant(0, tf.int32),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        B, cycle = state["B"], state["cycle"]
        same = tf.reduce_all(tf.equal(g, state["g"]))
        noisy = ~same & tf.math.is_finite(state["best_f"])  # f is of another mini-batch than in the last step
        image = tf.cond(same, lambda: state["image"], lambda: B.T @ g)
        length = linalg.norm(image)
        slopes = length > 0
        d = -(B @ (image / tf.where(slopes, length, 1)))
        ruined = tf.reduce_any(tf.not_equal(g, 0)) & linalg.fails(tf.tensordot(g, d, 1) < -length / 2)  # it is -length
        first = cycle["reach"] / tf.where(slopes, linalg.norm(d), 1)
        h = tf.where((cycle["reach"] > 0) & slopes, first, state["step_length"])
        best_before = tf.where(same, state["best_f"], tf.constant(np.inf, f.dtype))
        best = linalg.lower((state["best_x"], best_before), (x, f))
        cycle = _of_this_function(cycle, same, x)
        found = self._search(objective, _Search.begun(x, f, g, *best, h, over=ruined | ~slopes), d, noisy)
        B, image = self._dilated(B, image, found.g, ruined)
        new = {"B": B, "g": found.g, "image": image, "best_x": found.best_x, "best_f": found.best_f}
        new["step_length"] = self._next_length(found, noisy, cycle["number"])
        new["cycle"], new["status"] = _next_cycle(cycle, best_before, found, ruined, self.step_length)
        new["restarts"] = state["restarts"] + tf.cast(ruined, tf.int32)
        taken = ~noisy | (found.f <= f)
        reached = (linalg.choose(taken, there, here) for there, here in ((found.x, x), (found.f, f), (found.g, g)))
        x_new, *evaluated = reached
        return x_new, new, tuple(evaluated)

    def _search(self, objective, start, d, noisy):
        """Steps of length h along d, up to the first point from which d leads up; one where f is noisy."""
        most = tf.where(noisy, 1, self.max_evaluations)

        def trial(s):
            x_t = linalg.along(s.x, s.h, d)
            f_t, g_t = objective.value_and_grad(x_t)
            finite = tf.math.is_finite(f_t) & tf.math.is_finite(linalg.norm(g_t))
            stuck = s.h * linalg.norm(d) <= linalg.eps(x_t.dtype) * linalg.norm(s.x)
            grown = tf.where(tf.equal((s.trials + 1) % self.nh, 0) & ~noisy, s.h * self.q2, s.h)
            return _Search(
                *(linalg.choose(finite, new, old) for new, old in ((x_t, s.x), (f_t, s.f), (g_t, s.g))),
                *linalg.lower((s.best_x, s.best_f), (x_t, tf.where(finite, f_t, np.inf))),
                tf.where(finite, grown, s.h / 2),
                s.trials + 1,
                ~finite | stuck | (tf.tensordot(g_t, d, 1) >= 0),
                stuck,
                tf.equal(f_t, -np.inf),
            )

        def unfinished(s):
            return ~s.over & (s.trials < most)

        (found,) = tf.while_loop(unfinished, lambda s: (trial(s),), (start,), parallel_iterations=1)
        return found

    def _next_length(self, found, noisy, cycle_number):
        """h after a search."""
        dtype = found.h.dtype
        slow = tf.constant(self.q1 ** min(1, _FEW / found.x.shape[0]), dtype)
        shorter = tf.where(cycle_number > 0, slow, tf.constant(self.q1, dtype))
        longer = tf.where(noisy & ~found.over, tf.constant(self.q2 ** (1 / self.nh), dtype), 1)
        return found.h * tf.where(found.over & tf.equal(found.trials, 1), shorter, longer)

    def _dilated(self, B, image, g_new, ruined):
        """(B after the step, B'g_new for that B)."""
        image_new = B.T @ g_new
        difference = image_new - image
        size = linalg.norm(difference)
        dilates = (size > linalg.eps(image.dtype) * linalg.norm(image_new)) & ~ruined  # else the difference is rounding
        xi = tf.where(dilates, difference / tf.where(dilates, size, 1), tf.zeros_like(difference))
        beta = tf.where(dilates, tf.constant(1 / self.alpha, image.dtype), 1)
        dilated = image_new + (beta - 1) * tf.tensordot(xi, image_new, 1) * xi
        return B.dilate(xi, beta).reset(ruined), tf.where(ruined, g_new, dilated)

    def best_point(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        state = self.state
        return state["best_x"], state["best_f"]

    def get_config(self) -> dict[str, typing.Any]:
        names = ("alpha", "step_length", "q1", "q2", "nh", "max_evaluations", "storage")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _Search(typing.NamedTuple):
    """Where a search is.

    Attributes:
        x, f, g: [n], [], [n] the point reached.
        best_x, best_f: [n], [] the best point of the whole run.
        h: [] step length.
        trials: int32 [] points evaluated.
        over: bool [] the point is beyond the minimum along d, or no further step is possible.
        unbounded: bool [] f is -inf at the last trial, which is not taken.
        stuck: bool [] h d is too short to change x.
    """

    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    best_x: tf.Tensor
    best_f: tf.Tensor
    h: tf.Tensor
    trials: tf.Tensor
    over: tf.Tensor
    stuck: tf.Tensor
    unbounded: tf.Tensor

    @classmethod
    def begun(cls, x, f, g, best_x, best_f, h, over):
        return cls(x, f, g, best_x, best_f, h, tf.constant(0), over, tf.constant(False), tf.constant(False))


def _of_this_function(cycle, same, x):
    """The cycle, or a new one where the step is on another function than the last one."""
    zero, none = tf.zeros([], x.dtype), tf.constant(0)
    new = {"x": x, "f": tf.constant(np.inf, x.dtype), "reach": zero, "idle": none, "number": none}
    return {name: linalg.choose(same, cycle[name], new[name]) for name in cycle}


def _next_cycle(cycle, best_f, found, ruined, step_length):
    """(the cycle after a step, the status).

    Args:
        cycle: before.
        best_f: before.
        found: `_Search`.
        ruined: bool [].
        step_length: of the first step with an identity, where there is no way to take it from.
    """
    n, eps = found.x.shape[0], linalg.eps(found.x.dtype)

    def below(old):
        return tf.math.is_inf(old) | (found.best_f < old - eps * tf.abs(old))

    idle = tf.where(below(best_f), 0, cycle["idle"] + 1)
    over = found.stuck | (idle > _PATIENCE + 2 * n)
    travel = linalg.norm(found.x - cycle["x"])
    useful = below(cycle["f"]) & (travel > 0)
    renewed = (over | ruined) & useful
    again = {"x": found.x, "f": found.best_f, "reach": _RETURN * travel, "idle": tf.constant(0)}
    again["number"] = cycle["number"] + 1
    on = cycle | {"reach": tf.where(ruined, tf.constant(step_length, travel.dtype), 0), "idle": idle}
    status = first_failure((found.unbounded, Status.UNBOUNDED), (over & ~useful, Status.CONVERGED))
    return {name: linalg.choose(renewed, again[name], on[name]) for name in cycle}, status
