"""How a matrix differs from the one that is stored: a description, with products, and nothing carried out.

    SumChange        B_new = factor R + shift I + sum_j c_j u_j v_j'
    ProductChange    B_new = factor R (I + b_1 xi_1 xi_1') (I + b_2 xi_2 xi_2') ...        b_j = beta_j - 1

R is B, or the identity where `keep` is 0.

A product of dilations keeps its digits where the sum would lose them: B may shrink along a direction by many factors of
a half, and every factor is as accurate as the first.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Change(abc.ABC):
    """factor R with what a subclass adds to it. Operations return another change and leave this one as it is.

    `SharedMatrix` asks only for operations that its `updates` allow, so a kind defines `plus` and `shifted` if it can.
    """

    keep: tf.Tensor | None = None  # [], 1 or 0; None for 1
    factor: tf.Tensor | None = None  # []; None for 1
    parts: tuple = ()  # what is kept beside R, in order: terms of a sum, or factors of a product

    @property
    def nothing(self) -> bool:
        """There is nothing to carry out."""
        return self.keep is None and self.factor is None and not self.parts

    @property
    def numbers(self) -> Sequence[tf.Tensor | None]:
        """Every tensor of the description once, in the order of its operations."""
        return (self.factor, *{id(tensor): tensor for part in self.parts for tensor in part}.values())

    @abc.abstractmethod
    def product(self, stored_product: Callable[[tf.Tensor], tf.Tensor], columns: tf.Tensor) -> tf.Tensor:
        """B_new columns, [n, k].

        Args:
            stored_product: function from columns [n, k] to B columns.
            columns: [n, k].
        """

    @abc.abstractmethod
    def transposed_product(self, stored_product: Callable[[tf.Tensor], tf.Tensor], columns: tf.Tensor) -> tf.Tensor:
        """B_new' columns, where `stored_product` gives B' columns."""

    @abc.abstractmethod
    def scaled(self, s: tf.Tensor) -> "Change":
        """s B_new for s []."""

    def shifted(self, c: tf.Tensor) -> "Change":
        """B_new + c I for c []."""
        raise NotImplementedError(f"{type(self).__name__} has no shift")

    def plus(self, u: tf.Tensor, v: tf.Tensor, c: tf.Tensor) -> "Change":
        """B_new + c u v' for u, v [n] and c []; v is u for a symmetric term."""
        raise NotImplementedError(f"{type(self).__name__} has no terms")

    @abc.abstractmethod
    def dilated(self, B: Any, xi: tf.Tensor, b: tf.Tensor) -> "Change":
        """B_new (I + b xi xi').

        Args:
            B: the `SharedMatrix` with this change.
            xi, b: [n] and [].
        """

    @abc.abstractmethod
    def reset(self, keep: tf.Tensor) -> "Change":
        """This change where keep [] is 1, the identity where it is 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class SumChange(Change):
    """factor R + shift I + sum_j c_j u_j v_j'. A part is (u [n], v [n], c []), where v is u for a symmetric term."""

    shift: tf.Tensor | None = None  # []; None for 0

    @property
    def nothing(self):
        return super().nothing and self.shift is None

    @property
    def numbers(self):
        factor, *vectors = super().numbers
        return (factor, self.shift, *vectors)

    def product(self, stored_product, columns):
        return self._product(stored_product, columns, self.parts)

    def transposed_product(self, stored_product, columns):
        return self._product(stored_product, columns, [(v, u, c) for u, v, c in self.parts])

    def _product(self, stored_product, columns, terms):
        result = _unless_reset(self.keep, stored_product(columns), columns)
        if self.factor is not None:
            # So that a factor of zero forgets a matrix that is no longer finite, too.
            result = tf.math.multiply_no_nan(result, self.factor)
        if self.shift is not None:
            result = result + self.shift * columns
        for left, right, c in terms:
            result += c * left[:, None] * tf.linalg.matmul(right[None], columns)
        return result

    def scaled(self, s):
        factor = s if self.factor is None else s * self.factor
        shift = None if self.shift is None else s * self.shift
        return SumChange(self.keep, factor, tuple((u, v, s * c) for u, v, c in self.parts), shift)

    def shifted(self, c):
        return dataclasses.replace(self, shift=c if self.shift is None else self.shift + c)

    def plus(self, u, v, c):
        return dataclasses.replace(self, parts=(*self.parts, (u, v, c)))

    def dilated(self, B, xi, b):
        return self.plus(B @ xi, xi, b)

    def reset(self, keep):
        return SumChange(
            keep if self.keep is None else keep * self.keep,
            None if self.factor is None else tf.where(keep > 0, self.factor, 1),
            tuple((u, v, keep * c) for u, v, c in self.parts),
            None if self.shift is None else tf.where(keep > 0, self.shift, 0),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ProductChange(Change):
    """factor R prod_j (I + b_j xi_j xi_j'). A part is a factor (xi [n], b [])."""

    def product(self, stored_product, columns):
        for xi, b in reversed(self.parts):
            columns = _dilated(xi, b, columns)
        return self._outer(stored_product(columns), columns)

    def transposed_product(self, stored_product, columns):
        columns = self._outer(stored_product(columns), columns)
        for xi, b in self.parts:
            columns = _dilated(xi, b, columns)
        return columns

    def _outer(self, result, columns):
        result = _unless_reset(self.keep, result, columns)
        return result if self.factor is None else self.factor * result

    def scaled(self, s):
        return dataclasses.replace(self, factor=s if self.factor is None else s * self.factor)

    def dilated(self, _, xi, b):
        return dataclasses.replace(self, parts=(*self.parts, (xi, b)))

    def reset(self, keep):
        return ProductChange(
            keep if self.keep is None else keep * self.keep,
            None if self.factor is None else tf.where(keep > 0, self.factor, 1),
            tuple((xi, keep * b) for xi, b in self.parts),
        )


def _dilated(xi, b, columns):
    return columns + b * xi[:, None] * tf.linalg.matmul(xi[None], columns)


def _unless_reset(keep, product, columns):
    return product if keep is None else tf.where(keep > 0, product, columns)


def balanced(u, c):
    """The factors of sum_j c_j u_j u_j'. They give (i, j) and (j, i) the same bits.

    With c on one side the two would differ by a rounding, and a matrix that is off symmetry by one rounding per step
    soon is no longer positive definite.
    """
    half = tf.sqrt(tf.abs(c))[:, None] * u
    return tf.sign(c)[:, None] * half, half


def weighted(terms):
    """(left [r, n], right [r, n]) with left' right = sum_j c_j u_j v_j', for terms (u_j, v_j, c_j)."""
    us, vs, cs = zip(*terms, strict=True)
    left, right, c = tf.stack(us), tf.stack(vs), tf.stack(cs)
    if all(u is v for u, v in zip(us, vs, strict=True)):
        return balanced(left, c)
    return c[:, None] * left, right
