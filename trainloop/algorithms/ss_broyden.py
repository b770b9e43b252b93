"""Self-scaling Broyden: a member of Broyden's family and a scaling of H, both chosen anew at each update.

H is a `SharedMatrix`, the *inverse Hessian* of f, symmetric and positive definite. With s = x_new - x = -t H g,
y = g_new - g, B = H^-1 and

    b = s'B s / s'y = -t s'g / s'y        h = y'H y / s'y        a = h b - 1        c = sqrt(a / (1 + a))

    rho   = min(1, h (1 - c)) = min(1, 1 / (b (1 + c)))
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))                theta = 0 is BFGS, theta = 1 DFP
    sigma = 1 + a theta
    tau   = min(1, 1 / b) min(sigma^(-1 / (n - 1)), 1 / theta)           theta > 0
    tau   = min(min(1, 1 / b) sigma^(-1 / (n - 1)), sigma)               theta <= 0

    phi = (1 - theta) / sigma
    v = s / s'y - H y / y'H y
    H_new = (H - H y y'H / y'H y + phi (y'H y) v v') / tau + s s' / s'y

in two symmetric terms of rank one, see `_quasi_newton`. b > 1 says that B is too large along s: then theta < 0, beyond
BFGS on the side away from DFP, and tau < 1. The second form of rho keeps its digits where a is large. There theta <= 1
and sigma >= rho > 0, so H_new is positive definite; a = 0 but for rounding is taken for eps.
Al-Baali (1998), Numerical experience with a class of self-scaling quasi-Newton algorithms, JOTA 96(3); for networks
that solve differential equations Urban, Stefanou and Pons (2025), J. Comput. Phys. 523.
"""

from typing import Any

import tensorflow as tf

from trainloop.algorithms._quasi_newton import QuasiNewton
from trainloop.vectors import linalg


class SSBroyden(QuasiNewton):
    """Self-scaling Broyden method with a line search.

    What `SSBFGS` is for, and mostly ahead of it. A step costs what one of `BFGS` costs; when H starts again is said
    there.

    Args:
        line_search: "strong_wolfe", "hager_zhang" or "armijo", see `linesearch`.
        max_evaluations: of f in one line search, at least 2.
        initial_scaling: whether the first H gets the size of f: True, False or "auto", see `bfgs`. Afterwards
            tau and theta do that.
        storage: of H, see `storage_spec`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> steep = lambda x: tf.reduce_sum([1.0, 1e3, 1e6] * tf.cosh(x - 1))
        >>> minimize(steep, np.zeros(3), SSBroyden(), gtol=1e-8).x.round(6)
        array([1., 1., 1.])
    """

    expects_decrease = True

    def __init__(
        self,
        line_search: str = "strong_wolfe",
        max_evaluations: int = 20,
        initial_scaling: bool | str = False,
        storage: str = "auto",
        name: str = "ss_broyden",
        **kwargs: Any,
    ) -> None:
        super().__init__(line_search, max_evaluations, initial_scaling, storage, name, **kwargs)

    def member(self, b: tf.Tensor, h: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor]:
        a = tf.maximum(h * b - 1, linalg.eps(b.dtype))
        rho = tf.minimum(1 / (b * (1 + tf.sqrt(a / (1 + a)))), 1)
        theta = tf.maximum((rho - 1) / a, tf.minimum(1 / rho, 1 / b - 1))
        sigma = 1 + a * theta
        scaled = tf.minimum(1 / b, 1)
        root = sigma ** (-1 / (n - 1)) if n > 1 else tf.ones_like(sigma)
        towards_dfp = theta > 0
        tau = tf.where(
            towards_dfp,
            scaled * tf.minimum(root, 1 / tf.where(towards_dfp, theta, 1)),
            tf.minimum(scaled * root, sigma),
        )
        return tau, (1 - theta) / sigma
