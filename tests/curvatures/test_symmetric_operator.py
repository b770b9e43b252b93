"""What is learned of a matrix by its products, against NumPy's dense linear algebra."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from trainloop.curvatures import watch
from trainloop.curvatures.lanczos import quadrature
from trainloop.curvatures.minres import minres
from trainloop.curvatures.symmetric_operator import SymmetricOperator


def matrix(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues."""
    n = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    A = (Q * eigenvalues) @ Q.T
    return (A + A.T) / 2


def operator(A, dtype="float64"):
    return SymmetricOperator(lambda V: A @ V, len(A), dtype)


def outliers(n=120, seed=0):
    """A bulk around zero, and five large ones."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(scale=0.1, size=n - 5), [3.0, 5.0, 8.0, 13.0, 21.0]])


# --- Products ---------------------------------------------------------------------------------------------


def test_products_keep_the_kind_and_shape_of_what_is_multiplied():
    A = matrix(outliers(10))
    C, V = operator(A), np.random.default_rng(1).normal(size=(10, 3))
    assert C.shape == (10, 10)
    np.testing.assert_allclose(C @ V, A @ V)
    np.testing.assert_allclose(C @ V[:, 0], A @ V[:, 0])
    assert tf.is_tensor(C @ tf.constant(V))
    np.testing.assert_allclose((C @ tf.constant(V[:, 1])).numpy(), A @ V[:, 1])
    np.testing.assert_allclose(C.to_scipy() @ V, A @ V)
    assert np.array_equal(C.to_dense(), C.to_dense().T)


def test_float32_stays_float32():
    C = operator(matrix(outliers(60)).astype("float32"), "float32")
    values, vectors = C.top(3)
    assert values.dtype == vectors.dtype == (C @ np.ones(60)).dtype == np.float32
    np.testing.assert_allclose(values, [21, 13, 8], rtol=1e-5)
    assert C.spectrum(2, 20).nodes.max() == pytest.approx(21, rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda C: C @ np.ones(9), r"takes \[10\] or \[10, k\], received \(9,\)"),
        (lambda C: C.top(11), "k must be at most n = 10, received 11"),
        (lambda C: C.trace(products=3), "products must be an integer of at least 12"),
        (lambda C: C.solve(np.ones(10), damping=-1), "damping must be"),
        (lambda C: C.solve(np.ones(9)), r"b must have shape \[10\], received \[9\]"),
        (lambda C: C.spectrum(width=1e-4), "width must be at least 1/4,000 of the distance of the outermost nodes"),
        (lambda C: C.spectrum(seed=-1), "seed must be an integer of at least 0"),
        (lambda C: SymmetricOperator(lambda V: V, 5001).to_dense(), "n up to 5,000, received n = 5,001"),
        (lambda C: SymmetricOperator(lambda V: V, 5, "int32"), "dtype must be float32 or float64, received int32"),
        (lambda C: tf.function(lambda: C @ tf.ones(10))(), "outside of compiled functions"),
    ],
)
def test_what_does_not_fit_is_named(wrong, told):
    with pytest.raises(ValueError, match=told):
        wrong(operator(matrix(outliers(10))))


def test_scipy_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    with pytest.raises(ImportError, match=r"eigenvectors of large matrices needs scipy.*\[data\]"):
        operator(matrix(outliers())).top(2)


# --- Eigenvalues ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 120])  # dense, and by ARPACK
def test_the_largest_eigenvalues_come_in_descending_order_with_their_vectors(n):
    A = matrix(outliers(n))
    values, vectors = operator(A).top(7)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(A)[::-1][:7], atol=1e-9)
    np.testing.assert_allclose(A @ vectors, vectors * values, atol=1e-8)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(7), atol=1e-10)


def test_a_quadrature_is_exact_for_polynomials_up_to_degree_2m_minus_1():
    A, m = matrix(outliers(40)), 6
    starts = np.random.default_rng(2).normal(size=(40, 3))
    starts /= np.linalg.norm(starts, axis=0)
    nodes, weights = quadrature(lambda V: A @ V, starts, m)
    for degree in range(2 * m):
        moments = np.diag(starts.T @ np.linalg.matrix_power(A, degree) @ starts)
        np.testing.assert_allclose(np.sum(weights * nodes**degree, 1), moments, rtol=1e-10, atol=1e-10)


def test_no_eigenvalue_appears_twice():
    """Without reorthogonalisation large ones come again and again, as soon as they have been found."""
    eigenvalues = np.sort(outliers(60))
    A, start = matrix(eigenvalues), np.ones([60, 1]) / np.sqrt(60)
    nodes, _ = quadrature(lambda V: A @ V, start, 60)
    np.testing.assert_allclose(nodes[0], eigenvalues, atol=1e-10)


def test_a_krylov_space_may_end_early():
    A = matrix(np.repeat([1.0, 2.0, 5.0], 10))
    spectrum = operator(A).spectrum(probes=4, steps=12)
    seen = spectrum.nodes[spectrum.weights > 1e-12]
    assert np.abs(seen[:, None] - [1, 2, 5]).min(1).max() < 1e-10
    np.testing.assert_allclose(spectrum.weights.sum(1), 1)


def test_a_density_is_that_of_the_eigenvalues():
    eigenvalues = outliers(400)
    spectrum = operator(matrix(eigenvalues)).spectrum(probes=20, steps=60, width=0.02)
    step = spectrum.grid[1] - spectrum.grid[0]
    assert spectrum.density.sum() * step == pytest.approx(1, abs=0.01)
    for t in (-0.1, 0.0, 0.1, 1.0, 10.0):  # the share below t
        below = spectrum.density[spectrum.grid < t].sum() * step
        assert below == pytest.approx(np.mean(eigenvalues < t), abs=0.03)
    assert spectrum.nodes.max() == pytest.approx(21, abs=1e-8)


def test_probes_one_after_the_other_give_what_they_give_together(monkeypatch):
    C = operator(matrix(outliers(50)))
    together = C.spectrum(probes=5, steps=10)
    monkeypatch.setattr("trainloop.curvatures.spectrum._BASES_BYTES", 2 * 50 * 10 * 8)
    np.testing.assert_allclose(C.spectrum(probes=5, steps=10).nodes, together.nodes, atol=1e-12)


def test_a_spectrum_draws_itself(tmp_path):
    spectrum = operator(matrix(outliers())).spectrum(probes=2, steps=20)
    axes = spectrum.plot(tmp_path / "s.png", "A title").axes[0]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert axes.get_yscale() == "log"
    assert axes.get_xlim()[0] < -0.1 < 21 < axes.get_xlim()[1]
    assert repr(spectrum).startswith("Spectrum(n=120, from -0.")


def test_a_matrix_of_one_eigenvalue_has_a_spectrum():
    spectrum = operator(3 * np.eye(8)).spectrum(probes=2, steps=5)
    assert spectrum.grid[np.argmax(spectrum.density)] == pytest.approx(3, abs=spectrum.width)


# --- Trace and diagonal -----------------------------------------------------------------------------------


def test_trace_and_diagonal_of_few_rows_are_exact():
    A = matrix(outliers(30))
    for estimate, exact in ((operator(A).trace(30), np.trace(A)), (operator(A).diagonal(40), np.diag(A))):
        np.testing.assert_allclose(estimate.value, exact, atol=1e-12)
        assert np.all(estimate.standard_error == 0)
        assert estimate.products == 30


def test_low_rank_is_found_exactly():
    A = matrix(np.concatenate([np.arange(1.0, 9), np.zeros(92)]))
    trace, diagonal = operator(A).trace(36), operator(A).diagonal(36)
    assert trace.value == pytest.approx(36, abs=1e-10)
    assert trace.standard_error < 1e-10
    np.testing.assert_allclose(diagonal.value, np.diag(A), atol=1e-10)


def test_more_products_make_smaller_errors():
    C, exact = operator(matrix(outliers(300))), outliers(300).sum()
    few, many = C.trace(30), C.trace(240)
    assert abs(many.value - exact) < 2 * many.standard_error < 0.7 * few.standard_error
    assert C.trace(30, seed=1).value != few.value == C.trace(30).value


SHAPES = {
    "outliers": outliers(),
    "flat": np.random.default_rng(3).uniform(size=120),
    "power": 1 / np.arange(1.0, 121),
    "float": 10 * np.exp(-np.arange(120) / 8),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SHAPES)
def test_estimates_lie_within_two_standard_errors_as_often_as_they_should(name):
    A = matrix(SHAPES[name])
    traces = [operator(A).trace(60, seed=seed) for seed in range(400)]
    inside = [abs(e.value - np.trace(A)) <= 2 * e.standard_error for e in traces]
    assert np.mean(inside) > 0.92  # 0.95 are expected; three standard deviations of 400 draws below
    diagonals = [operator(A).diagonal(60, seed=seed) for seed in range(100)]
    inside = [np.abs(e.value - np.diag(A)) <= 2 * e.standard_error for e in diagonals]
    assert np.mean(inside) > 0.93


# --- Systems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 1.0], ids=["indefinite", "definite"])
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_system_is_solved(shift, damping):
    A = matrix(outliers(60) + shift)
    b = np.random.default_rng(4).normal(size=60)
    x = operator(A).solve(b, damping, tolerance=1e-11, steps=400)
    np.testing.assert_allclose(x, np.linalg.solve(A + damping * np.eye(60), b), rtol=1e-6, atol=1e-7)
    assert tf.is_tensor(operator(A).solve(tf.constant(b), damping=0.5))


def test_each_step_has_the_smallest_residual_of_its_krylov_space():
    A, b = matrix(outliers(30)), np.random.default_rng(5).normal(size=30)
    krylov = [b]
    for k in range(1, 7):
        basis = np.linalg.qr(np.stack(krylov, 1))[0]
        best = np.linalg.lstsq(A @ basis, b, rcond=None)
        solved = minres(lambda v: A @ v, b, 1e-12, k)
        np.testing.assert_allclose(solved.x, basis @ best[0], rtol=1e-6, atol=1e-8)
        assert solved.residual == pytest.approx(np.sqrt(best[1][0]) / np.linalg.norm(b), rel=1e-6)
        krylov.append(A @ krylov[-1])


def test_what_has_not_converged_says_so():
    A, b = matrix(outliers(60)), np.ones(60)
    with pytest.warns(UserWarning, match=r"has not converged: after 3 steps .* wanted 1.0e-06"):
        operator(A).solve(b, steps=3)
    singular = np.diag([1.0, 2.0, 0.0])
    with pytest.warns(UserWarning, match="has not converged"):
        x = operator(singular).solve(np.array([1.0, 2.0, 3.0]))
    assert np.linalg.norm(singular @ x - [1, 2, 3]) == pytest.approx(3)


def test_the_solution_for_zero_is_zero():
    assert not np.any(operator(matrix(outliers(10))).solve(np.zeros(10)))


# --- The bar ----------------------------------------------------------------------------------------------


def test_a_bar_appears_only_where_somebody_looks_and_once(monkeypatch, capsys):
    monkeypatch.setattr(watch, "_PATIENCE", 0)
    with watch.watched("work", 3) as advance:
        advance()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with watch.watched("work", 3) as advance:
        advance()
        with watch.watched("part of it", 2) as advance_part:
            advance_part()
    told = capsys.readouterr().err
    assert "work" in told
    assert "part of it" not in told
