"""AdaGrad with a full matrix: the gradients so far, all of them or the last r, shape the step.

The exact form, with a matrix G [n, n] that starts at zero:

    G <- beta2^2 G + g g'                               Duchi, Hazan and Singer (2011), figure 2, where beta2 = 1
    x <- x - t (epsilon I + G^(1/2))^-1 g               their equation 4 without regulariser and constraints

The window, with the last r gradients as rows of V [r, n], the newest first, each with the weight beta2^age:

    V = [g_k; beta2 g_(k-1); ...; beta2^(r-1) g_(k-r+1)]                 Agarwal et al. (2019), algorithm 1
    x <- x - t (epsilon I + (V'V)^(1/2))^-1 g

They split g into a part inside of the span of V and g / epsilon outside of it, which is zero but for rounding: g is a
row of V. Here it is written as one, g = V'e with e = (1, 0, ..., 0). Since f(V'V) V' = V' f(V V') for every f,

    (epsilon I + (V'V)^(1/2))^-1 g = V'a             a = (epsilon I + (V V')^(1/2))^-1 e

so that both forms need (epsilon I + M^(1/2))^-1 b for one small M, G or V V', from its eigenvectors. Nothing is divided
by a singular value alone, and nothing cancels. As G >= g g', the result is shorter than 1: no step is longer than t.

Eigenvalues are known up to an error delta: k u |M| from the entries of M [k, k], u = 2^-52, and the residual of the
eigenvectors. Smaller ones may be nothing but error, and to divide by their roots would make steps of any length. So
delta is added: M + delta I >= G holds for what is computed, steps stay shorter than t, and directions in which the
gradients differ by less than sqrt(delta / |M|) of their size are damped as if it were so much. That is 1e-7, the
precision of a float32 gradient, because M is made in float64; from float32 products it would be 1e-3 to 1e-2, which is
how much the gradients of mini-batches do differ. (XLA ends its eigenvectors early: there it is 1e-3 all the same.)

The window changes by one row per step, and V V' without the weights by one row and column. So the window is read twice,
for the products with g and for the sum, 2 r n numbers, and the weights are r numbers.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_no_storage
from trainloop.matrices.vector_ring import VectorRing, combine
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.types import LearningRate, State, VectorUpdate
from trainloop.vectors import linalg

# Up to this n "auto" is exact: a step then takes 15 ms, at n = 1000 it takes 600.
_LARGEST_EXACT = 300
_WINDOW = 50


class FullMatrixAdaGrad(GlobalVectorOptimizer):
    """AdaGrad with a full matrix.   Duchi, Hazan and Singer (2011); with a window, Agarwal et al. (2019).

    The step depends neither on the choice of coordinates nor, where epsilon is small against the gradients, on their
    unit. A zero gradient changes nothing. A sum over all gradients grows and shortens the steps like 1 / sqrt(steps); a
    window does not, as a schedule for the learning rate may.

    Memory: n^2 or r n numbers of float64. Time: O(n^3) per step, or O(r n + r^3).

    Args:
        learning_rate: t, positive. No step is longer.
        window: r, how many gradients are kept. None keeps the sum over all of them, [n, n]; "auto" does so up to
            n = 300, and keeps 50 gradients beyond.
        beta2: factor on a gradient per step of its age, in (0, 1]. 1 forgets nothing.
        epsilon: positive, the size of a gradient that counts as small.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        >>> valley = lambda x: (x[0] + x[1]) ** 2 + 100 * (x[0] - x[1]) ** 2
        >>> minimize(valley, [1.0, 2.0], FullMatrixAdaGrad(0.2), max_steps=200).f < 1e-6
        True
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.2,
        window: int | str | None = "auto",
        beta2: float = 1.0,
        epsilon: float = 1e-4,
        name: str = "full_matrix_adagrad",
        **kwargs: Any,
    ) -> None:
        check_no_storage("FullMatrixAdaGrad", kwargs)
        super().__init__(learning_rate, name=name, **kwargs)
        given = window is not None and window != "auto"
        self.window = checks.integer("window", window, at_least=1) if given else window
        self.beta2 = checks.real("beta2", beta2, above=0, at_most=1)
        self.epsilon = checks.real("epsilon", epsilon, above=0)

    def init_state(self, x: tf.Tensor) -> State:
        n, r = x.shape[0], self.window
        if r == "auto":
            r = None if n <= _LARGEST_EXACT else _WINDOW
        updates = tf.constant(0, tf.int64)
        if r is None:
            G = SharedMatrix.identity(n, dtype=tf.float64, storage="dense", updates="symmetric")
            return {"G": G, "updates": updates}
        V = VectorRing.empty(r, n=n, dtype=tf.float64)  # type: ignore[arg-type]  # the only name is "auto"
        return {"V": V, "VV": tf.zeros([r, r], tf.float64), "updates": updates}

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        nonzero = tf.reduce_any(tf.not_equal(g, 0))
        direction = self._exact if "G" in state else self._windowed
        d, new = direction(tf.cast(g, tf.float64), nonzero, state)
        new["updates"] = state["updates"] + tf.cast(nonzero, tf.int64)
        return linalg.along(x, -self.learning_rate, tf.cast(d, x.dtype)), new

    def _exact(self, g, nonzero, state):
        """(H^-1 g, new state) from the matrix of all gradients."""
        first = tf.equal(state["updates"], 0)  # a SharedMatrix starts at I
        kept = tf.where(first, tf.zeros([], g.dtype), self.beta2**2)
        G = state["G"].scale(tf.where(nonzero, kept, 1)).add_symmetric(g)
        return self._inverse_root_times(G.to_dense(), g), {"G": G}

    def _windowed(self, g, nonzero, state):
        """(H^-1 g, new state) from the last r gradients."""
        r = state["VV"].shape[0]
        slot = tf.cast(state["updates"] % r, tf.int32)
        here = tf.equal(tf.range(r), slot)
        column = tf.where(here, tf.tensordot(g, g, 1), state["V"].dots(g))
        VV = tf.where(here, column[:, None], tf.where(here[:, None], column, state["VV"]))
        age = tf.cast((slot - tf.range(r)) % r, g.dtype)
        weight = tf.pow(tf.constant(self.beta2, g.dtype), age)
        e = tf.cast(here & nonzero, g.dtype)
        c = weight * self._inverse_root_times(weight[:, None] * VV * weight, e)
        # The slot of g still holds the oldest gradient.
        d = combine(tf.gather(c, slot), g, (state["V"], tf.where(here, tf.zeros_like(c), c)))
        return d, {"V": state["V"].put(slot, g, nonzero), "VV": tf.where(nonzero, VV, state["VV"])}

    def _inverse_root_times(self, M, b):
        """(epsilon I + (M + delta I)^(1/2))^-1 b for M [k, k] and b [k]."""
        finite = tf.reduce_all(tf.math.is_finite(M))
        # Other numbers make `eigh` raise an error; NaN ends the block with a status.
        values, Q = tf.linalg.eigh(tf.where(finite, M, tf.zeros_like(M)))
        rounding = M.shape[0] * np.finfo(np.float64).eps * linalg.largest(values)
        delta = rounding + tf.norm(tf.linalg.matmul(M, Q) - Q * values)
        roots = tf.sqrt(tf.maximum(values, 0) + delta)
        result = tf.linalg.matvec(Q, tf.linalg.matvec(Q, b, transpose_a=True) / (roots + self.epsilon))
        return tf.where(finite, result, tf.constant(np.nan, M.dtype))

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("window", "beta2", "epsilon")}
        return {**super().get_config(), **own}
