"""Newton's method with a trust region and conjugate gradients: curvature by products, no matrix.

A step p minimises the model of f around x,

    m(p) = g'p + p'B p / 2        |p| <= radius        B = Gauss-Newton matrix or Hessian

approximately, by Steihaug's conjugate gradients (`trust_region`). One trial point is evaluated per step:

    rho = (f(x) - f(x + p)) / -m(p)

says whether it is taken and how large the next region is. Where the decrease is below the rounding of f, rho is noise;
then the trial is taken if the gradient is shorter there.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.linesearch.trust_region import trial
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State

CURVATURES = ("gauss_newton", "hessian")


class NewtonCG(GlobalObjectiveOptimizer):
    """Truncated Newton method in a trust region.   Steihaug (1983).

    A step costs one evaluation of f and g, and up to `max_products` products with B. A trial that is no improvement
    leaves x where it is and shrinks the region. The run ends with `Status.STALLED` when the region is too small to
    move x.

    Args:
        curvature: "gauss_newton": never indefinite, the better choice for networks, needs a loss of the model's
            outputs or residuals. "hessian": for any function; conjugate gradients follow negative curvature to the
            edge of the region.
        radius: of the first region, positive, in units of x.
        max_radius: at least `radius`.
        max_products: per step, at least 1.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> valley = testing.problems["helical_valley"]
        >>> found = minimize(valley.fun, valley.x0, NewtonCG(curvature="hessian"))
        >>> found.evaluations["Hv"] < 100
        True
    """

    needs_digits = True

    def __init__(
        self,
        curvature: str = "gauss_newton",
        radius: float = 1.0,
        max_radius: float = 1000.0,
        max_products: int = 100,
        name: str = "newton_cg",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.curvature = checks.choice("curvature", curvature, CURVATURES)
        self.radius = checks.real("radius", radius, above=0)
        self.max_radius = checks.real("max_radius", max_radius, at_least=self.radius)
        self.max_products = checks.integer("max_products", max_products, at_least=1)

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "radius": tf.constant(self.radius, x.dtype),
            "rho": tf.zeros([], x.dtype),
            "products": tf.constant(0, tf.int32),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        product = objective.ggnvp if self.curvature == "gauss_newton" else objective.hvp
        found = trial(objective, x, f, g, lambda v: product(x, v), state["radius"], self.max_radius, self.max_products)
        new = {"radius": found.radius, "rho": found.rho, "products": found.products}
        new["status"] = first_failure((found.unbounded, Status.UNBOUNDED), (found.stalled, Status.STALLED))
        return found.x, new, (found.f, found.g)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("curvature", "radius", "max_radius", "max_products")}
        return {**super().get_config(), **own}
