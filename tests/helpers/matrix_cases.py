"""Random changes of matrices, in this package and in NumPy, and ways to carry them out, for tests of every storage."""

import keras
import numpy as np
import tensorflow as tf

import trainloop as tl
from trainloop.matrices.shared_matrix import SharedMatrix

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


class Draw:
    """Random changes of an n x n matrix; each is done to a SharedMatrix and to a NumPy matrix."""

    def __init__(self, n, dtype="float64", seed=0):
        self.n, self.dtype, self.rng = n, dtype, np.random.default_rng(seed)

    def vector(self, *columns) -> np.ndarray:
        return self.rng.normal(size=(self.n, *columns)).astype(self.dtype)

    def unit(self) -> np.ndarray:
        u = self.vector()
        return u / np.linalg.norm(u)

    def number(self, around=0.0) -> np.ndarray:
        return np.asarray(around + self.rng.uniform(-0.2, 0.2), self.dtype)

    def change(self, symmetric=False):
        """A pair of functions (SharedMatrix -> SharedMatrix, [n, n] -> [n, n])."""
        kind = self.rng.choice(["symmetric", "scale"] if symmetric else ["symmetric", "scale", "outer", "dilate"])
        return getattr(self, f"_{kind}")()

    def _symmetric(self):
        u, c = self.unit(), self.number()
        return lambda B: B.add_symmetric(u, c), lambda M: M + c * np.outer(u, u)

    def _outer(self):
        u, v, c = self.unit(), self.unit(), self.number()
        return lambda B: B.add_outer(u, v, c), lambda M: M + c * np.outer(u, v)

    def _scale(self):
        s = self.number(1.0)
        return lambda B: B.scale(s), lambda M: s * M

    def _dilate(self):
        xi, beta = self.unit(), self.number(1.0)
        return lambda B: B.dilate(xi, beta), lambda M: M @ (np.eye(self.n) + (beta - 1) * np.outer(xi, xi))


def assert_equals(B, M, draw=None) -> None:
    """B is M, seen through every product."""
    draw = draw or Draw(B.n, B.dtype.name)
    v, V = draw.vector(), draw.vector(3)
    tolerance = {"rtol": 0, "atol": TOLERANCE[B.dtype.name] * max(1.0, np.abs(M).max()) * B.n}
    np.testing.assert_allclose(B @ v, M @ v, **tolerance)
    np.testing.assert_allclose(B @ V, M @ V, **tolerance)
    np.testing.assert_allclose(B.T @ v, M.T @ v, **tolerance)
    np.testing.assert_allclose(B.T @ V, M.T @ V, **tolerance)
    np.testing.assert_allclose(B.to_dense(), M, **tolerance)


def with_variables(B) -> tuple[SharedMatrix, dict[str, tf.Variable]]:
    """B in variables, as an optimizer keeps it, and these by name."""
    variables = {}

    def make_variable(name, value, grows):
        assert name not in variables
        shape = [None, *value.shape[1:]] if grows else value.shape
        variables[name] = tf.Variable(value, shape=shape)
        return variables[name]

    return B.as_variables(make_variable), variables


def eagerly(function):
    return function


def run_updates(B, counts, symmetric, seed=0, way=tf.function) -> np.ndarray:
    """Commit B <- s (B + sum_j c_j u_j v_j') with the given numbers of terms j; returns the same as NumPy does it."""
    draw, M = Draw(B.n, B.dtype.name, seed), np.eye(B.n)

    @way
    def update(s, U, V, c):
        new = B
        for i in range(len(U)):
            new = new.add_symmetric(U[i], c[i]) if symmetric else new.add_outer(U[i], V[i], c[i])
        new.scale(s).commit()

    for count in counts:
        s, c = draw.number(1.0), np.array([draw.number() for _ in range(count)])
        U = np.array([draw.unit() for _ in range(count)])
        V = U if symmetric else np.array([draw.unit() for _ in range(count)])
        update(s, U, V, c)
        M = s * (M + U.T @ np.diag(c) @ V)
    return M


def best(M, r):
    """The nearest matrix of rank r, by Eckart and Young (1936)."""
    u, values, v = np.linalg.svd(M)
    return u[:, :r] * values[:r] @ v[:r]


def draw_dilations(count, dtype="float64", n=6, seed=0):
    """Unit vectors [count, n] and beta - 1 [count] for dilations by 1/3 to 1/2."""
    rng = np.random.default_rng(seed)
    xis = rng.normal(size=(count, n))
    xis /= np.linalg.norm(xis, axis=1, keepdims=True)
    return xis.astype(dtype), (rng.uniform(1 / 3, 1 / 2, count) - 1).astype(dtype)


def dense_product(xis, bs, dtype="float64"):
    """I (I + b_1 xi_1 xi_1') (I + b_2 xi_2 xi_2') ..., one after the other in this precision."""
    M = np.eye(xis.shape[1], dtype=dtype)
    for xi, b in zip(xis.astype(dtype), bs.astype(dtype), strict=True):
        M = M + b * np.outer(M @ xi, xi)
    return M


class Changing(tl.GlobalVectorOptimizer):
    """x stays; B changes as a small method would change it."""

    def __init__(self, storage, updates, **kwargs):
        super().__init__(None, **kwargs)
        self.storage, self.updates = storage, updates

    def init_state(self, x):
        n = x.shape[0]
        return {"B": SharedMatrix.identity(n, dtype=x.dtype, storage=self.storage, updates=self.updates)}

    def update(self, x, g, state):
        B, u = state["B"], g / tf.norm(g)
        if self.updates == "dilations":
            return x, {"B": B.dilate(u, 0.5).scale(1.1)}
        B = B.scale(1.1).add_symmetric(u, -0.3)
        return x, {"B": B.add_outer(u, tf.reverse(u, [0]), 0.2) if self.updates == "any" else B}


def built(storage, updates, steps=0, n=6):
    """An optimizer after some steps, and its matrix as NumPy has it."""
    optimizer = Changing(storage, updates)
    variable = keras.Variable(np.zeros(n), dtype="float64")
    optimizer.build([variable])
    optimizer.given = (variable,)
    gradients = np.random.default_rng(0).normal(size=(steps, n))
    for g in gradients:
        optimizer.apply([tf.constant(g)], [variable])
    M = np.eye(n)
    for g in gradients:
        u = g / np.linalg.norm(g)
        if updates == "dilations":
            M = 1.1 * M @ (np.eye(n) - 0.5 * np.outer(u, u))
        else:
            M = 1.1 * M - 0.3 * np.outer(u, u) + (0.2 * np.outer(u, u[::-1]) if updates == "any" else 0)
    return optimizer, M


def saved(optimizer):
    store = {}
    optimizer.save_own_variables(store)
    return store
