"""A step of the scaled Broyden family: an inverse Hessian H over all parameters, and a line search along d = -H g.

H is a `SharedMatrix`, the *inverse Hessian* of f, symmetric and positive definite. With s = x_new - x,
y = g_new - g, u = H y, p = s'y, q = y'u and two numbers tau > 0 and phi, which tell the members of the family apart,

    H_new = (H - u u' / q + phi q v v') / tau + s s' / p          v = s / p - u / q
          = H / tau + c w w' - e u u'                             w = s - phi / (tau + phi h) u

    h = q / p    c = (1 + phi h / tau) / p    e = (tau (1 - phi) + phi h) / (tau q (tau + phi h))

The second line is the first one multiplied out and the square completed: two symmetric rank-one terms, one product
with H. H_new y = s whatever tau and phi are. In terms of B = H^-1, which is nowhere needed,

    b = s'B s / p = -t s'g / p        a = h b - 1 >= 0        phi = (1 - theta) / (1 + a theta)

because s = -t H g; theta = 0 is BFGS, theta = 1 DFP, and H_new is positive definite where 1 + a theta > 0.
Al-Baali (1998), Numerical experience with a class of self-scaling quasi-Newton algorithms, JOTA 96(3).

The first trial of a line search is t0 = 1 where H has the size of f. Where H began as I it may be far too large in
directions that no step has met yet. There, as long as f > 0, as losses are,

    t0 = min(1, 2.02 f / |g'd|)

the minimum of the parabola that falls by f, to 0: no step can be expected to win more. It is what Nocedal and Wright
(2006), equation 3.60, make of the decrease of the last step. With initial_scaling="auto" that is 1, or

    t0 = f / |g'd|        where 2.02 f < |g'd|

There the parabola is refuted: with its minimum at d it would fall by |g'd| / 2, below 0. The tangent is left, which
reaches 0 at t0, the step of Polyak (1969) for subgradients, USSR Comput. Math. Math. Phys. 9(3).

Where H is scaled at every update, it is made larger along what the last step has seen, and steps of t = 1 are often too
long. There t0 is that of equation 3.60 itself, with the decrease of the last step in place of f: in the training of
networks a step takes hardly more than one evaluation then, and leads as far.
"""

import abc
from typing import Any, NamedTuple

import tensorflow as tf

from trainloop import checks, linesearch
from trainloop.linesearch.first_trial import first_trial
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

# Twice the decrease over the slope is where a parabola has its minimum; a little more, so that t0 becomes 1 in the end.
_MORE = 2.02


class QuasiNewton(GlobalObjectiveOptimizer):
    """What the members of the family share; a subclass is one of them.

    Args:
        line_search, max_evaluations, initial_scaling, storage, name, kwargs: see `BFGS`.
    """

    needs_digits = True

    # Whether the first trial follows from the decrease of the last step, which the state has then.
    expects_decrease = False

    def __init__(
        self,
        line_search: str,
        max_evaluations: int,
        initial_scaling: bool | str,
        storage: str,
        name: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.line_search = checks.choice("line_search", line_search, linesearch.SEARCHES)
        self.max_evaluations = checks.integer("max_evaluations", max_evaluations, at_least=2)
        self.initial_scaling = _checked_scaling(initial_scaling)
        self.storage = check_storage(storage)

    @abc.abstractmethod
    def member(self, b: tf.Tensor, h: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor]:
        """(tau [], phi []) of an update.

        Args:
            b, h: [], positive; b h >= 1 but for rounding.
            n: length of x.
        """

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "H": SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage=self.storage, updates="symmetric"),
            "updates": tf.constant(0, tf.int32),  # of this H; 0 after a restart
            "step_length": tf.zeros([], x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
            **({"decrease": tf.zeros([], x.dtype)} if self.expects_decrease else {}),  # of f, in the last step
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        moving = tf.reduce_any(tf.not_equal(g, 0))
        d = -(state["H"] @ g)
        slope = _Slope.of(g, d)
        lost = moving & linalg.fails(slope.cosine < 0)  # rounding has made H indefinite
        fresh = tf.equal(state["updates"], 0) | lost
        d = linalg.choose(lost, -g, d)
        first = tf.where(fresh, first_trial(x, g), self._later_trial(f, slope, state))
        search = linesearch.SEARCHES[self.line_search]
        found = search(objective, x, f, g, d, first, max_evaluations=self.max_evaluations)
        failed = ~(found.t > 0) & moving
        H = state["H"].reset(lost | failed)
        H, used, broken = self._updated_matrix(H, found.x - x, found.g - g, -found.t * g, fresh, f > 0)
        updates = tf.where(lost, 0, state["updates"]) + tf.cast(used, tf.int32)
        new = {
            "H": H,
            "updates": tf.where(failed | broken, 0, updates),
            "step_length": found.t,
            "status": first_failure((found.unbounded, Status.UNBOUNDED), (fresh & failed, Status.STALLED)),
            **({"decrease": f - found.f} if self.expects_decrease else {}),
        }
        return found.x, new, (found.f, found.g)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("line_search", "max_evaluations", "initial_scaling", "storage")}
        return {**super().get_config(), **own}

    def _later_trial(self, f, slope, state):
        """The first trial t0 [] where H is not the identity."""
        if self.initial_scaling is True and not self.expects_decrease:
            return tf.ones_like(f)
        expected = tf.where(state["decrease"] > 0, state["decrease"], f) if self.expects_decrease else f
        # In an order in which no product leaves the range of the dtype.
        bound = _MORE * expected / slope.of_g / slope.of_d / -slope.cosine
        short = bound / _MORE if self.initial_scaling == "auto" and not self.expects_decrease else bound
        return tf.where((bound > 0) & (bound < 1), short, 1)

    def _updated_matrix(self, H, s, y, Bs, fresh, is_loss):
        """H after the pair (s, y), or as it was; whether the pair was used; whether H was indefinite and is I again.

        Args:
            H: `SharedMatrix`.
            s, y, Bs: [n].
            fresh: bool [], H is the identity.
            is_loss: bool [], f is positive.
        """
        one, zeros = tf.ones([], s.dtype), tf.zeros_like(s)
        ss, yy, p = tf.tensordot(s, s, 1), tf.tensordot(y, y, 1), tf.tensordot(s, y, 1)
        curved = p > linalg.eps(s.dtype) * tf.sqrt(ss) * tf.sqrt(yy)
        p = tf.where(curved, p, one)
        gamma = tf.where(fresh & curved, self._first_size(p, yy, is_loss), one)
        u = gamma * (H @ y)
        q = tf.tensordot(y, u, 1)
        sound = (q > 0) & tf.math.is_finite(q)
        b = tf.tensordot(s, Bs, 1) / (p * gamma)
        useful = curved & sound & (b > 0)
        q, b, u = tf.where(useful, q, one), tf.where(useful, b, one), tf.where(useful, u, zeros)
        h = q / p
        tau, phi = self.member(b, h, s.shape[0])
        c, e = (1 + phi * h / tau) / p, (tau * (1 - phi) + phi * h) / (tau * q * (tau + phi * h))
        # Where f is tiny, a pair may be too short for the range of the dtype.
        useful &= tf.math.is_finite(c) & tf.math.is_finite(e) & tf.math.is_finite(gamma / tau)
        c, e = tf.where(useful, c, 0), tf.where(useful, e, 0)
        u = tf.where(useful, u, zeros)
        w = tf.where(useful, s - phi / (tau + phi * h) * u, zeros)
        H = H.scale(tf.where(useful, gamma / tau, one)).add_symmetric(w, c)
        broken = curved & ~sound
        return H.add_symmetric(u, -e).reset(broken), useful, broken

    def _first_size(self, p, yy, is_loss):
        """What H is multiplied by before its first update."""
        if self.initial_scaling is False:
            return tf.ones_like(p)
        size = p / yy
        return size if self.initial_scaling is True else tf.where(is_loss, tf.maximum(size, 1), size)


def _checked_scaling(value):
    if value is True or value is False or value == "auto":
        return value
    raise ValueError(f"initial_scaling must be True, False or 'auto', received {value!r}")


class _Slope(NamedTuple):
    """g'd = |g| |d| cosine, in factors: the product of short or long vectors could leave the range of the dtype."""

    of_g: tf.Tensor
    of_d: tf.Tensor
    cosine: tf.Tensor

    @classmethod
    def of(cls, g, d):
        of_g, of_d = linalg.norm(g), linalg.norm(d)
        return cls(of_g, of_d, tf.tensordot(g / of_g, d / of_d, 1))
