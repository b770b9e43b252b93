"""Small quadratic programs with u >= 0, solved exactly: all sets of unknowns that may be positive are looked at.

    min_u  u'Q u / 2 + q'u,  u >= 0         Q [k, k] positive semidefinite, the program bounded below

has its solution where u >= 0, s = Q u + q >= 0, and u_i s_i = 0 for each i. For a set S of indices in which u may be
positive that is

    u_S = -Q_SS^-1 q_S >= 0,  u = 0 elsewhere,  s_i = q_i + Q_iS u_S >= 0 elsewhere

Gauss-Jordan elimination of the rows of S in the table [Q | -q] leaves u_S in the rows of S, and -s_i in the others. The
tables of all 2^k sets come from k steps: in step j each table that is there gets a copy in which row j is eliminated.
For k = 3 these are 8 tables, for k = 10 1,024 of 10 rows, and both are arithmetic on whole arrays: no loop, no
tolerance at which to stop, no branch. An iteration would need hundreds of small operations for twelve digits, each of
which costs more than all the tables for the usual two to five terms.

A set whose rows are linearly dependent is left out (its pivot is at most the rounding error of Q): there is always a
solution with independent ones (Caratheodory), and s and G'u are the same for all solutions.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

# More terms than this would need too many tables: 2^12 of 12 rows and 24 columns take 9 MB.
MOST_TERMS = 12


class Tables(NamedTuple):
    """What elimination leaves of the right hand sides.

    Attributes:
        inside: whether i belongs to the set, bool [2^k, k].
        regular: whether the rows of the set are independent, bool [2^k].
        sides: right hand sides after elimination [2^k, k, r].
    """

    inside: tf.Tensor
    regular: tf.Tensor
    sides: tf.Tensor

    def signed(self, sides):
        """u_S in the rows of the set and s in the others, of right hand sides -q after elimination."""
        inside = tf.expand_dims(self.inside, -1) if sides.shape.rank == 3 else self.inside
        return tf.where(inside, sides, -sides)

    def violation(self, signed):
        """By how much one of them is negative, over the second axis; infinite where the set is dependent."""
        worst = tf.reduce_max(tf.maximum(-signed, 0), 1)
        regular = tf.reshape(self.regular, [-1] + [1] * (worst.shape.rank - 1))
        return tf.where(regular, worst, tf.constant(np.inf, worst.dtype))


def tables(Q, sides, digits):
    """The `Tables` of all sets.

    Args:
        Q: [k, k], entries of the diagonal about 1, or 0.
        sides: right hand sides [k, r].
        digits: pivots that are at most this count as 0.

    Raises:
        ValueError: too many unknowns.
    """
    k = Q.shape[0]
    if k > MOST_TERMS:
        raise ValueError(f"at most {MOST_TERMS} terms can be combined this way, received {k}; add some of them up")
    T, regular = tf.concat([Q, sides], 1)[None], tf.ones([1], tf.bool)
    for j in range(k):
        pivot = T[:, j, j]
        is_regular = pivot > digits
        row = T[:, j : j + 1] / tf.where(is_regular, pivot, tf.ones_like(pivot))[:, None, None]
        eliminated = T - T[:, :, j : j + 1] * row
        eliminated = tf.concat([eliminated[:, :j], row, eliminated[:, j + 1 :]], 1)
        T = tf.concat([T, eliminated], 0)
        regular = tf.concat([regular, regular & is_regular], 0)
    inside = np.arange(2**k)[:, None] >> np.arange(k) & 1
    return Tables(tf.constant(inside.astype(bool)), regular, T[:, :, k:])


def minimisers(Q, q, digits):
    """u [k, r] that minimises u'Q u / 2 + q_c'u over u >= 0, for each column q_c of q [k, r].

    Args:
        Q, q: the programs.
        digits: see `tables`.
    """
    found = tables(Q, -q, digits)
    signed = found.signed(found.sides)
    best = tf.argmin(found.violation(signed))  # [r]
    u = tf.gather(tf.transpose(signed, [2, 0, 1]), best, batch_dims=1)  # [r, k]
    return tf.transpose(tf.where(tf.gather(found.inside, best), tf.maximum(u, 0), tf.zeros_like(u)))
