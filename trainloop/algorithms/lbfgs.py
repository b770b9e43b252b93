"""Limited-memory BFGS: an inverse Hessian H made of the last m steps, and a line search along d = -H g.

With the pairs s_j = x_(j+1) - x_j, y_j = g_(j+1) - g_j as rows of S and Y [k, n], oldest first, and
gamma = s'y / y'y of the newest pair,

    H = gamma I + [S' gamma Y'] [ R^-T (D + gamma Y Y') R^-1    -R^-T ] [ S       ]
                                [ -R^-1                          0    ] [ gamma Y ]

    R = upper triangle of S Y' [k, k], D = its diagonal.        Byrd, Nocedal and Schnabel (1994), equation 3.1

so that H g = gamma g + S'a + Y'b with

    p = R^-1 S g        a = R^-T ((D + gamma Y Y') p - gamma Y g)        b = -gamma p.

This is the same H as the two-loop recursion (Nocedal 1980) gives, but the history is read twice, for the products
with g and for the sum, instead of four times with an n-vector written in between each. S Y' and Y Y' are [m, m] and
grow by one row and one column per step, for 2 m products with the new y.

A pair enters only if its curvature is clear of rounding, s'y > eps |s| |y|: then R is regular and H positive
definite. On mini-batches y is the difference of two gradients of the *same* batch, so it measures curvature and not
noise.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks, linesearch
from trainloop.linesearch.first_trial import first_trial
from trainloop.matrices.vector_ring import STORAGES, VectorRing, combine
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg


class LBFGS(GlobalObjectiveOptimizer):
    """Limited-memory BFGS with a line search.   Liu and Nocedal (1989).

    Memory: 2 m n numbers. A step costs one evaluation of f and g in most cases, and reads the history three times.

    When a line search finds nothing better, the history is dropped and the next step goes along -g; when that fails
    too the run ends with `Status.STALLED`. A zero gradient, which a mini-batch may have, changes nothing.

    Args:
        m: number of pairs kept, at least 1.
        line_search: "strong_wolfe", "hager_zhang" or "armijo", see `linesearch`.
        max_evaluations: of f in one line search, at least 2.
        first_step: length of the very first step, and of each one after the history was dropped, as a multiple of
            min(1, 1 / |g|), or of what f resolves where |g| is tiny; positive.
        storage: of the pairs: "dense", or "sharded" over devices or workers, see `VectorRing`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> whole = ArrayData(x, y, batch_size=None)
        >>> result = TrainLoop(model, LBFGS(m=20), loss).run(whole, steps=5)
        >>> result.evaluations["gradient"] >= 5
        True
    """

    needs_digits = True

    def __init__(
        self,
        m: int = 10,
        line_search: str = "strong_wolfe",
        max_evaluations: int = 20,
        first_step: float = 1.0,
        storage: str = "dense",
        name: str = "lbfgs",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.m = checks.integer("m", m, at_least=1)
        self.line_search = checks.choice("line_search", line_search, linesearch.SEARCHES)
        self.max_evaluations = checks.integer("max_evaluations", max_evaluations, at_least=2)
        self.first_step = checks.real("first_step", first_step, above=0)
        self.storage = checks.choice("storage", storage, STORAGES)

    def init_state(self, x: tf.Tensor) -> State:
        history = VectorRing.empty(2 * self.m, n=x.shape[0], dtype=x.dtype, storage=self.storage)
        return {
            "history": history,  # the rows of S, then those of Y
            "SY": tf.zeros([self.m, self.m], x.dtype),
            "YY": tf.zeros([self.m, self.m], x.dtype),
            "pairs": tf.constant(0, tf.int32),
            "next_slot": tf.constant(0, tf.int32),
            "step_length": tf.zeros([], x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        fresh = tf.equal(state["pairs"], 0)
        d = self._direction(g, state)
        length = linalg.norm(g)
        first = tf.cond(fresh, lambda: self.first_step * first_trial(x, g), lambda: tf.ones_like(length))
        search = linesearch.SEARCHES[self.line_search]
        found = search(objective, x, f, g, d, first, max_evaluations=self.max_evaluations)
        failed = ~(found.t > 0) & (length > 0)
        new = self._remembered(found.x - x, found.g - g, failed, state)
        new["step_length"] = found.t
        new["status"] = first_failure((found.unbounded, Status.UNBOUNDED), (fresh & failed, Status.STALLED))
        return found.x, new, (found.f, found.g)

    def _direction(self, g, state):
        """-H g."""
        order, filled = self._oldest_first(state)

        def table(values):
            values = tf.gather(tf.gather(values, order), order, axis=1)
            return tf.where(filled[:, None] & filled, values, tf.zeros_like(values))

        def column(values):
            return tf.where(filled, tf.gather(values, order), tf.zeros_like(values))

        sy, yy = table(state["SY"]), table(state["YY"])
        sg, yg = map(column, self._products(state, g))
        diagonal = tf.linalg.diag_part(sy)
        newest = diagonal[-1] / tf.linalg.diag_part(yy)[-1]
        gamma = tf.where(filled[-1], newest, tf.ones_like(newest))
        # Empty slots count nothing: zeros everywhere, but for a one on the diagonal that keeps R regular.
        R = tf.linalg.set_diag(tf.linalg.band_part(sy, 0, -1), tf.where(filled, diagonal, tf.ones_like(diagonal)))
        p = _solve(R, sg)
        a = _solve(R, diagonal * p + gamma * (tf.linalg.matvec(yy, p) - yg), adjoint=True)
        b = -gamma * p
        slots = tf.argsort(order)
        coefficients = tf.concat([tf.gather(a, slots), tf.gather(b, slots)], 0)
        return combine(-gamma, g, (state["history"], -coefficients))

    def _products(self, state, v):
        """(S v [m], Y v [m]), by slot."""
        return tf.split(state["history"].dots(v), 2)

    def _oldest_first(self, state):
        """(slots from the oldest to the newest, which of them are filled): empty slots first."""
        position = tf.range(self.m)
        return (state["next_slot"] + position) % self.m, position >= self.m - state["pairs"]

    def _remembered(self, s, y, failed, state):
        """The state with a new pair in the place of the oldest, without it, or empty after a failure, where s = 0."""
        slot = state["next_slot"]
        here = tf.equal(tf.range(self.m), slot)
        ss, yy, sy = tf.tensordot(s, s, 1), tf.tensordot(y, y, 1), tf.tensordot(s, y, 1)
        useful = sy > linalg.eps(s.dtype) * tf.sqrt(ss) * tf.sqrt(yy)
        products_s, products_y = self._products(state, y)
        column_sy, column_yy = tf.where(here, sy, products_s), tf.where(here, yy, products_y)
        # Rows of S Y' belong to s. The new s was last, so its products with older y are below the diagonal: not needed.
        SY = tf.where(here, column_sy[:, None], state["SY"])
        YY = tf.where(here, column_yy[:, None], tf.where(here[:, None], column_yy, state["YY"]))
        pairs = tf.where(useful, tf.minimum(state["pairs"] + 1, self.m), state["pairs"])
        return {
            "history": state["history"].put(slot, s, useful).put(self.m + slot, y, useful),
            "SY": tf.where(useful, SY, state["SY"]),
            "YY": tf.where(useful, YY, state["YY"]),
            "pairs": tf.where(failed, 0, pairs),
            "next_slot": tf.where(useful, (slot + 1) % self.m, slot),
        }

    def get_config(self) -> dict[str, Any]:
        names = ("m", "line_search", "max_evaluations", "first_step", "storage")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _solve(R, right, adjoint=False):
    return tf.linalg.triangular_solve(R, right[:, None], lower=False, adjoint=adjoint)[:, 0]
