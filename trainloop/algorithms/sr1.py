"""SR1: a Hessian over all parameters that may be indefinite, and steps in a trust region.

B is a `SharedMatrix`, an approximation of the *Hessian* of f, symmetric. With s the step tried, taken or not, y the
change of the gradient on it and r = y - B s,

    B_new = B + r r' / (r's)                                Nocedal and Wright (2006), equation 6.24, algorithm 6.2

is the only symmetric update of rank one with B_new s = y. It is left out where the denominator is no more than
rounding, |r's| < 1e-8 |r| |s| (equation 6.26), and as long as no step was taken: far trials say nothing about the
Hessian here. The first step taken multiplies B by y'y / s'y, the size that f has along s.

The step minimises g'p + p'B p / 2 in |p| <= radius by conjugate gradients, which follow negative curvature
(`trust_region`).
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.linesearch.first_trial import first_trial
from trainloop.linesearch.trust_region import trial
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

_LEAST_COSINE = 1e-8


class SR1(GlobalObjectiveOptimizer):
    """Symmetric rank-one quasi-Newton method in a trust region.   Conn, Gould and Toint (1991).

    Where f is not convex its B follows the true Hessian better than the one of BFGS, which is kept positive definite. A
    step costs one evaluation of f and g, and up to `max_products` products with B, and one more.

    When the region becomes too small to move x, B is the identity again and the region as large as the first; when that
    does not help the run ends with `Status.STALLED`.

    Args:
        radius: of the first region, positive, in units of x.
        max_radius: at least `radius`.
        max_products: with B per step, at least 1.
        storage: of B, see `storage_spec`. "factored:40:restart" is the limited-memory form: 40 vectors, and a new
            beginning when they are used up.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> saddle = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4
        >>> round(minimize(saddle, [1.0, 0.1], SR1(radius=0.5)).f, 6)
        -0.25
    """

    needs_digits = True

    def __init__(
        self,
        radius: float = 1.0,
        max_radius: float = 1000.0,
        max_products: int = 100,
        storage: str = "auto",
        name: str = "sr1",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.radius = checks.real("radius", radius, above=0)
        self.max_radius = checks.real("max_radius", max_radius, at_least=self.radius)
        self.max_products = checks.integer("max_products", max_products, at_least=1)
        self.storage = check_storage(storage)

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "B": SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage=self.storage, updates="symmetric"),
            "steps": tf.constant(0, tf.int32),  # with this B
            "radius": tf.constant(self.radius, x.dtype),
            "rho": tf.zeros([], x.dtype),
            "products": tf.constant(0, tf.int32),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        B, steps = state["B"], state["steps"]
        fresh = tf.equal(steps, 0)
        # The identity as a Hessian gives p = -g, which changes nothing where f has a small unit; p is longer then.
        size = tf.where(fresh, 1 / tf.maximum(first_trial(x, g), 1), 1)
        found = trial(objective, x, f, g, lambda v: size * (B @ v), state["radius"], self.max_radius, self.max_products)
        again = found.stalled & ~fresh
        B = _updated(B, found.p, found.y, found.taken | ~fresh, found.taken & fresh).reset(again)
        new = {
            "B": B,
            "steps": tf.where(again, 0, steps + tf.cast(found.taken, tf.int32)),
            "radius": tf.where(again, tf.constant(self.radius, x.dtype), found.radius),
            "rho": found.rho,
            "products": found.products,
            "status": first_failure((found.unbounded, Status.UNBOUNDED), (found.stalled & fresh, Status.STALLED)),
        }
        return found.x, new, (found.f, found.g)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("radius", "max_radius", "max_products", "storage")}
        return {**super().get_config(), **own}


def _updated(B, s, y, wanted, first):
    """B after the pair (s, y) where it is wanted and safe, scaled before if it is the first one."""
    wanted = wanted & tf.math.is_finite(linalg.norm(y))
    y = tf.where(wanted, y, tf.zeros_like(y))
    unit, by_unit = _in_unit(y)
    yy, sy = tf.tensordot(by_unit, by_unit, 1), tf.tensordot(s, by_unit, 1)
    sized = first & (sy > _LEAST_COSINE * linalg.norm(s) * linalg.norm(by_unit))
    scaled = B.scale(tf.where(sized, yy / tf.where(sized, sy, 1) * unit, 1))
    unit, r = _in_unit(y - scaled @ s)
    rs = tf.tensordot(r, s, 1)
    safe = wanted & (tf.abs(rs) > _LEAST_COSINE * linalg.norm(r) * linalg.norm(s))
    return scaled.add_symmetric(tf.where(safe, r, tf.zeros_like(r)), tf.where(safe, unit / tf.where(safe, rs, 1), 0))


def _in_unit(v):
    """(unit [], v / unit [n]): a power of two near |v|, so that no digit changes and squares stay representable."""
    unit = linalg.power_of_two(linalg.norm(v))
    return unit, v / unit
