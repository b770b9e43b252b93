"""BFGS: an inverse Hessian over all parameters, and a line search along d = -H g.

H is a `SharedMatrix`, the *inverse Hessian* of f, symmetric and positive definite. With s = x_new - x,
y = g_new - g and rho = 1 / s'y,

    H_new = (I - rho s y') H (I - rho y s') + rho s s'                    Nocedal and Wright (2006), equation 6.17

the member tau = phi = 1 of the family in `_quasi_newton`, where it is carried out. Before the first update H = I may be
multiplied by s'y / y'y (equation 6.20), which is the size that f has along y:

    True      s'y / y'y
    False     1
    "auto"    max(1, s'y / y'y) where f > 0, else s'y / y'y

s'y / y'y is near the *least* of the inverse curvatures along g. Where curvatures differ by much H is then far too small
in nearly all directions, and steps crawl, which costs more than an H that is too large: that is shortened by the first
trial, without an evaluation, as a loss cannot fall by more than f. An H that is too small even along y is enlarged.
With "auto" the trial is then Polyak's step f / |g'd|, see `_quasi_newton`.
"""

from typing import Any

import tensorflow as tf

from trainloop.algorithms._quasi_newton import QuasiNewton


class BFGS(QuasiNewton):
    """The method of Broyden, Fletcher, Goldfarb and Shanno (1970) with a line search.

    A step costs one evaluation of f and g in most cases, two products with H and its update. A pair (s, y) is used
    only if its curvature is clear of rounding, s'y > eps |s| |y|.

    When a line search finds nothing better, or rounding has made H indefinite, H becomes the identity again and the
    next step goes along -g; the log shows it: `updates`, the number of pairs in H, falls to 0. When that fails too the
    run ends with `Status.STALLED`. A zero gradient, which a mini-batch may have, changes nothing.

    Args:
        line_search: "strong_wolfe", "hager_zhang" or "armijo", see `linesearch`.
        max_evaluations: of f in one line search, at least 2.
        initial_scaling: whether the first H gets the size of f: True, False, or "auto" for the rule in this file's
            first lines, with Polyak's step f / |g'd| for the first trial where d promises more than f. With False
            the unit of f matters, as in SciPy's BFGS.
        storage: of H, see `storage_spec`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> f = lambda x: tf.reduce_sum(tf.cosh(x - [1.0, 2.0, 3.0]))
        >>> minimize(f, np.zeros(3), BFGS(line_search="hager_zhang"), gtol=1e-8).message
        'the largest entry of the gradient is at most gtol'
    """

    left_out_of_config = ("initial_scaling",)

    def __init__(
        self,
        line_search: str = "strong_wolfe",
        max_evaluations: int = 20,
        initial_scaling: bool | str = "auto",
        storage: str = "auto",
        name: str = "bfgs",
        **kwargs: Any,
    ) -> None:
        super().__init__(line_search, max_evaluations, initial_scaling, storage, name, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.initial_scaling == "auto":
            del config["initial_scaling"]
        return config

    def member(self, b: tf.Tensor, h: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.ones_like(b), tf.ones_like(b)
