"""When a minimisation is over: tests of two successive points, compiled with the loop.

    gtol            max_i |g_i| <= gtol                                 at the new point
    ftol            |f_new - f| <= ftol max(1, |f|, |f_new|)            and the point moved
    xtol            |x_new - x| <= xtol max(1, |x_new|)                 and the point moved
    f_target        f_new <= f_target
    max_evaluations evaluations of f so far >= max_evaluations

A step that does not move (a trust region that rejects its trial) says nothing about convergence, so ftol and xtol do
not look at it.

gtol is in the unit of f, so a default that fits all functions has to follow that unit. With eps of the dtype and
u = max(|f(x0)|, max_i |g_i(x0)|) it is

    eps^(1/3)      where eps^(1/6) <= u <= eps^(-5/6)
    eps^(2/3) u    elsewhere

The first line asks a function of ordinary size for a gradient of fixed size. Below its range that gradient would be met
at x0 or soon after it; above, it would be shorter than the rounding errors of g.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.status import Status, first_failure
from trainloop.vectors import linalg


@dataclasses.dataclass(frozen=True)
class StoppingRule:
    """Tolerances, None where a test is not wanted. `checked` makes one that the dtype can hold."""

    NO_TEST = -math.inf  # for gtol: no gradient is as short as that

    gtol: float
    ftol: float
    xtol: float
    f_target: float
    max_evaluations: int

    @classmethod
    def checked(cls, dtype, gtol=None, ftol=None, xtol=None, f_target=None, max_evaluations=None):
        """A rule for a dtype.

        Args:
            dtype: of x.
            gtol: None for eps^(1/3): 6e-6 in float64, 5e-3 in float32; see `default_gtol` for functions of
                another size. 0 asks for a gradient of exact zeros.
            ftol, xtol: relative, so not below eps; None for no test.
            f_target: any number, None for no test.
            max_evaluations: at least 1, None for no limit.

        Raises:
            ValueError: a tolerance is negative or finer than the dtype, or something is not a number.
        """
        info = np.finfo(tf.as_dtype(dtype).as_numpy_dtype)
        if gtol != cls.NO_TEST:
            gtol = float(info.eps) ** (1 / 3) if gtol is None else checks.real("gtol", gtol, at_least=0)
        if 0 < gtol < info.tiny:
            raise ValueError(f"gtol={gtol:g} is below {info.tiny:.2g}, the smallest {info.dtype}; pass 0{_wider(info)}")
        ftol, xtol = (_relative(name, value, info) for name, value in (("ftol", ftol), ("xtol", xtol)))
        if f_target is not None:
            f_target = checks.real("f_target", f_target)
        if max_evaluations is not None:
            max_evaluations = checks.integer("max_evaluations", max_evaluations, at_least=1)
        return cls(gtol, ftol, xtol, f_target, max_evaluations)

    @staticmethod
    def default_gtol(f, g):
        """The default gtol of a function that has these values at x0.

        Args:
            f, g: [], [n], finite.
        """
        eps = linalg.eps(f.dtype)
        unit = max(abs(float(f)), float(linalg.largest(g)))
        ordinary = eps ** (1 / 6) <= unit <= eps ** (-5 / 6)
        return eps ** (1 / 3) if ordinary else eps ** (2 / 3) * unit

    def at_point(self, f, g):
        """The code of the tests that need one point only, RUNNING if none holds: int32 []."""
        largest = linalg.largest(g)
        conditions = [
            (tf.equal(f, -np.inf), Status.UNBOUNDED),
            (~tf.math.is_finite(f), Status.NONFINITE_LOSS),
            (~tf.math.is_finite(largest), Status.NONFINITE_GRADIENT),
            (largest <= tf.convert_to_tensor(self.gtol, g.dtype), Status.GRADIENT_TOLERANCE),
        ]
        if self.f_target is not None:
            conditions.insert(3, (f <= tf.constant(self.f_target, f.dtype), Status.TARGET_REACHED))
        return first_failure(*conditions)

    def between(self, x, f, x_new, f_new, g_new, evaluations):
        """The code after a step from x to x_new.

        Args:
            evaluations: of f so far, int64 [].
        """
        status = self.at_point(f_new, g_new)
        moved = tf.reduce_any(tf.not_equal(x, x_new))
        conditions = []
        if self.ftol is not None:
            scale = tf.maximum(tf.maximum(tf.abs(f), tf.abs(f_new)), 1)
            small = tf.abs(f_new - f) <= tf.constant(self.ftol, f.dtype) * scale
            conditions.append((moved & small, Status.F_TOLERANCE))
        if self.xtol is not None:
            small = linalg.norm(x_new - x) <= tf.constant(self.xtol, x.dtype) * tf.maximum(linalg.norm(x_new), 1)
            conditions.append((moved & small, Status.X_TOLERANCE))
        if self.max_evaluations is not None:
            conditions.append((evaluations >= self.max_evaluations, Status.EVALUATIONS_SPENT))
        return tf.where(status == Status.RUNNING, first_failure(*conditions), status)


def _relative(name, value, info):
    """A relative tolerance as a float, None where none is wanted."""
    if value is None:
        return None
    number = checks.real(name, value, at_least=0)
    if number < info.eps:
        raise ValueError(
            f"{name} must be at least {info.eps:.2g}, the relative precision of {info.dtype}; received {value!r}; "
            f"raise it, or leave it out{_wider(info)}"
        )
    return number


def _wider(info):
    return ", or use float64" if info.bits < 64 else ""
