"""Self-scaling BFGS: before each update the Hessian is made smaller where the last step says that it is too large.

H is a `SharedMatrix`, the *inverse Hessian* of f, symmetric and positive definite. With s = x_new - x = -t H g,
y = g_new - g, rho = 1 / s'y and b = -t s'g / s'y, the curvature that H^-1 has along s over the one that f has there,

    H_new = (I - rho s y') H (I - rho y s') / tau + rho s s'

    tau = min(1, 1 / b)      "al_baali"          Al-Baali (1998), JOTA 96(3)
    tau = 1 / b              "oren_luenberger"   Oren and Luenberger (1974), Management Science 20(5)

the member phi = 1 of the family in `_quasi_newton`, where it is carried out. BFGS takes down
one large eigenvalue of H^-1 per step, tau < 1 all at once. Al-Baali's tau never enlarges them.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.algorithms._quasi_newton import QuasiNewton

SCALINGS = ("al_baali", "oren_luenberger")


class SSBFGS(QuasiNewton):
    """Self-scaling BFGS with a line search.

    For functions whose curvatures differ by many powers of ten: a network that solves a differential equation, in
    float64 and on full batches, after some steps of `Adam`. A step costs what one of `BFGS` costs; when H starts again
    is said there.

    Args:
        scaling: "al_baali" or "oren_luenberger", see this file's first lines.
        line_search: "strong_wolfe", "hager_zhang" or "armijo", see `linesearch`.
        max_evaluations: of f in one line search, at least 2.
        initial_scaling: whether the first H gets the size of f: True, False or "auto", see `bfgs`. Afterwards
            tau does that.
        storage: of H, see `storage_spec`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> steep = lambda x: tf.reduce_sum([1.0, 1e3, 1e6] * tf.cosh(x - 1))
        >>> minimize(steep, np.zeros(3), SSBFGS(), gtol=1e-8).x.round(6)
        array([1., 1., 1.])
    """

    expects_decrease = True

    def __init__(
        self,
        scaling: str = "al_baali",
        line_search: str = "strong_wolfe",
        max_evaluations: int = 20,
        initial_scaling: bool | str = False,
        storage: str = "auto",
        name: str = "ss_bfgs",
        **kwargs: Any,
    ) -> None:
        super().__init__(line_search, max_evaluations, initial_scaling, storage, name, **kwargs)
        self.scaling = checks.choice("scaling", scaling, SCALINGS)

    def member(self, b: tf.Tensor, h: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor]:
        tau = 1 / b
        return tf.minimum(tau, 1) if self.scaling == "al_baali" else tau, tf.ones_like(b)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scaling": self.scaling}
