"""How a matrix differs from the one that is stored: a description, with products, and nothing carried out.

    SumChange        B_new = factor R + shift I + sum_j c_j u_j v_j'
    ProductChange    B_new = factor R (I + b_1 xi_1 xi_1') (I + b_2 xi_2 xi_2') ...        b_j = beta_j - 1

R is B, or the identity where `keep` is 0.

A product of dilations keeps its digits where the sum would lose them: B may shrink along a direction by many factors of
a half, and every factor is as accurate as the first.
"""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class SumChange:
    """factor R + shift I + sum_j c_j u_j v_j'; None for a factor of 1 and a shift of 0."""

    keep: tf.Tensor | None = None  # [], 1 or 0; None for 1
    factor: tf.Tensor | None = None  # []
    shift: tf.Tensor | None = None  # []
    terms: tuple = ()  # of (u [n], v [n], c []); v is u for a symmetric term

    @property
    def nothing(self):
        return self.keep is None and self.factor is None and self.shift is None and not self.terms

    @property
    def numbers(self):
        """Every tensor of the description."""
        vectors = {id(tensor): tensor for term in self.terms for tensor in term}
        return (self.factor, self.shift, *vectors.values())

    def product(self, stored_product, columns):
        return self._product(stored_product, columns, self.terms)

    def transposed_product(self, stored_product, columns):
        return self._product(stored_product, columns, [(v, u, c) for u, v, c in self.terms])

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
        return SumChange(self.keep, factor, shift, tuple((u, v, s * c) for u, v, c in self.terms))

    def shifted(self, c):
        return dataclasses.replace(self, shift=c if self.shift is None else self.shift + c)

    def plus(self, u, v, c):
        return dataclasses.replace(self, terms=(*self.terms, (u, v, c)))

    def dilated(self, B, xi, b):
        """B (I + b xi xi'), where B is the matrix with this change."""
        return self.plus(B @ xi, xi, b)

    def reset(self, keep):
        """This change where keep [] is 1, the identity where it is 0."""
        return SumChange(
            keep if self.keep is None else keep * self.keep,
            None if self.factor is None else tf.where(keep > 0, self.factor, 1),
            None if self.shift is None else tf.where(keep > 0, self.shift, 0),
            tuple((u, v, keep * c) for u, v, c in self.terms),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ProductChange:
    """factor R prod_j (I + b_j xi_j xi_j')."""

    keep: tf.Tensor | None = None  # [], 1 or 0; None for 1
    factor: tf.Tensor | None = None  # []
    dilations: tuple = ()  # of (xi [n], b [])

    @property
    def nothing(self):
        return self.factor is None and self.keep is None and not self.dilations

    @property
    def numbers(self):
        """Every tensor of the description."""
        return (self.factor, *(tensor for dilation in self.dilations for tensor in dilation))

    def product(self, stored_product, columns):
        for xi, b in reversed(self.dilations):
            columns = _dilated(xi, b, columns)
        return self._outer(stored_product(columns), columns)

    def transposed_product(self, stored_product, columns):
        columns = self._outer(stored_product(columns), columns)
        for xi, b in self.dilations:
            columns = _dilated(xi, b, columns)
        return columns

    def _outer(self, result, columns):
        result = _unless_reset(self.keep, result, columns)
        return result if self.factor is None else self.factor * result

    def scaled(self, s):
        return dataclasses.replace(self, factor=s if self.factor is None else s * self.factor)

    def dilated(self, _, xi, b):
        return dataclasses.replace(self, dilations=(*self.dilations, (xi, b)))

    def reset(self, keep):
        return ProductChange(
            keep if self.keep is None else keep * self.keep,
            None if self.factor is None else tf.where(keep > 0, self.factor, 1),
            tuple((xi, keep * b) for xi, b in self.dilations),
        )


def _dilated(xi, b, columns):
    return columns + b * xi[:, None] * tf.linalg.matmul(xi[None], columns)


def _unless_reset(keep, product, columns):
    return product if keep is None else tf.where(keep > 0, product, columns)
