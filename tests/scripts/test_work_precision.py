"""Tests of the benchmarks of differential equations and curves: what they measure, and that all of it runs."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from environment import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import trainloop as tl
from benchmarks import by_hand, courses, curves_to_fit, work_precision
from benchmarks.equations import EQUATIONS, example


class Known:
    """A problem whose error is 1, 1/2, 1/3, ..."""

    def __init__(self):
        self.measured = 0

    def error(self):
        self.measured += 1
        return 1 / self.measured


def test_a_course_adds_up():
    course = courses.Course(Known())
    course.spend(0.0, 1)
    course.spend(2.0, 10)
    assert course.rows == [(0.0, 1, 1.0), (2.0, 11, 0.5)]


def test_marks_begin_with_the_first_step_and_end_with_the_last():
    assert courses.marks(1) == [1]
    assert courses.marks(0) == []
    marks = courses.marks(5_000)
    assert marks[0] == 1
    assert marks[-1] == 5_000
    assert marks == sorted(set(marks))


def test_medians_are_over_cells_and_seeds():
    common = {"problem": "fit1d", "method": "Adam", "seconds": 1.0, "evaluations": 3, "milliseconds": None}
    rows = work_precision._medians([{**common, "error": error} for error in (3.0, 1.0, 7.0)])
    assert rows == [
        {"group": "fit1d", "name": "Adam", "error": 3.0, "low": 1.0, "high": 7.0, "seconds": 1.0, "evaluations": 3}
        | {"milliseconds": None}
    ]


def small():
    return curves_to_fit.fit1d(seed=0, curve="sine", width=4)


@pytest.mark.parametrize(
    "method", sorted(work_precision.METHODS, key=lambda name: name not in ("SSBroyden", "SciPy BFGS"))
)
@pytest.mark.thorough_after(2)
@pytest.mark.filterwarnings("ignore")  # other libraries warn when they are imported
def test_a_method_lowers_the_error(method, monkeypatch):
    monkeypatch.setenv("DDE_BACKEND", "tensorflow")
    if method in by_hand.METHODS:
        pytest.importorskip(by_hand.METHODS[method][0], exc_type=ImportError)
    problem = small()
    before = problem.error()
    found = work_precision.record(method, problem, 0.01, 60.0)
    seconds, evaluations, errors = zip(*found["rows"], strict=True)
    assert found["error"] == errors[-1] == problem.error() < before
    assert list(seconds) == sorted(seconds)
    assert evaluations[-1] >= 20 + 10 - 1  # steps of Adam and of the method


def test_time_is_up_after_adam():
    found = work_precision.record("LBFGS", small(), 0.01, 1e-9)
    assert found["ended"] == "the time is up"
    assert len(found["rows"]) > len(courses.marks(20))


def test_by_hand_is_the_same_function():
    problem = small()
    _, evaluate, assign, x = by_hand.vector_function(problem)
    objective = tl.ModelObjective(problem.model, residuals=problem.residuals, batch=problem.points.values)
    f, g = objective.value_and_grad(objective.vector.read())
    assert evaluate(x)[0] == pytest.approx(float(f), rel=1e-12)
    np.testing.assert_allclose(evaluate(x)[1], g, rtol=1e-10, atol=1e-14)
    assign(x + 1)
    np.testing.assert_array_equal(objective.vector.read(), x + 1)


def test_stacked_residuals_are_those_of_the_loss():
    """Of two terms with weights, one of them in batches, in parts that begin and end within a term."""
    problem = EQUATIONS["poisson5d"](seed=0, share=0.01)
    problem.weights = {"pde": 0.5, "boundary": 4.0}
    rows = np.array_split(np.arange(problem.count), 4)
    squares = sum(float(tf.reduce_sum(problem.stacked(part) ** 2)) for part in rows)
    assert squares == pytest.approx(float(problem.value()), rel=1e-12)


def test_what_a_peer_raises_ends_its_own_run_only(monkeypatch, tmp_path):
    def broken(problem, course, after, seconds):
        raise RuntimeError("no such operation\nin line 7")

    monkeypatch.setitem(by_hand.METHODS, "SciPy BFGS", ("scipy", broken))
    problem = dataclasses.replace(small(), adam=0)
    found = work_precision.record("SciPy BFGS", problem, 0.01, 60.0)
    assert found["ended"] == "failed: RuntimeError: no such operation"
    assert found["error"] == problem.error()
    work_precision.publish(
        tmp_path, "fit", "A title", [{"problem": "fit1d", "method": "SciPy BFGS", "seed": 0, **found}]
    )


def test_a_fixed_batch_is_from_all_points():
    problem = curves_to_fit.sinc(seed=0)
    x, y = (values.numpy() for values in problem.points.values["fit"])
    every = np.mean((np.asarray(problem.model(x[::20])) - y[::20]) ** 2)
    assert float(problem.value()) == pytest.approx(every, rel=1e-12)


def test_a_report_has_a_table_a_file_and_diagrams(tmp_path, capsys):
    found = work_precision.record("Adam", small(), 0.002, 60.0)
    work_precision.publish(tmp_path, "fit", "A title", [{"problem": "fit1d", "method": "Adam", "seed": 0, **found}])
    assert "fit1d" in capsys.readouterr().out
    saved = json.loads((tmp_path / "fit.json").read_text())
    assert saved["runs"][0]["rows"] == [list(row) for row in found["rows"]]
    assert (tmp_path / "fit-fit1d.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.thorough_after(1)
def test_the_points_and_the_loss_of_an_equation(name):
    problem = EQUATIONS[name](seed=0, share=0.01)
    again = EQUATIONS[name](seed=0, share=0.01)
    assert set(problem.points.values) == set(problem.residuals)
    assert np.isfinite(float(problem.value()))
    assert problem.error() == again.error() > 0.1  # the start knows nothing of the solution


def test_the_constructed_start_has_its_zeros_at_equal_distances():
    w, b = curves_to_fit.fit1d(seed=0, width=8, constructed=True).model.get_weights()[:2]
    np.testing.assert_allclose(np.sort(-b / w[0]), np.linspace(-1, 1, 8), atol=1e-12)


def burgers_residual(u, p, h=1e-4):
    """u_t + u u_x - nu u_xx of a function of points by central differences."""
    x, t = np.array([h, 0]), np.array([0, h])
    u_t, u_x = (u(p + t) - u(p - t)) / (2 * h), (u(p + x) - u(p - x)) / (2 * h)
    return u_t + u(p) * u_x - example("burgers").NU * (u(p + x) - 2 * u(p) + u(p - x)) / h**2


def test_cole_and_hopf_solve_burgers_equation():
    exact = example("burgers").exact
    p = np.random.default_rng(0).uniform([-0.9, 0.1], [0.9, 0.3], (50, 2))
    assert np.abs(burgers_residual(exact, p)).max() < 1e-4
    x = np.stack([np.linspace(-1, 1, 9), np.zeros(9)], 1)
    np.testing.assert_allclose(exact(x), -np.sin(np.pi * x[:, 0]), atol=1e-12)


def test_the_spectral_solution_does_not_depend_on_its_modes():
    program = example("allen_cahn")
    (p, u), (q, fine) = program.spectral(), program.spectral(modes=1_024, steps=2_000, every=40)
    chosen = np.isin(np.round(q[:, 0], 12), np.round(p[:, 0], 12))
    np.testing.assert_allclose(q[chosen], p, atol=1e-12)
    assert np.linalg.norm(fine[chosen] - u) < 2e-5 * np.linalg.norm(u)
