"""`minimize` with one optimizer after the other: against the same calls by hand."""

import numpy as np
import pytest
import tensorflow as tf

import trainloop as tl

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

X0 = np.array([-1.2, 1.0])


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def momentum_then_lbfgs(**end):
    return [tl.Phase(tl.Momentum(1e-4), **(end or {"steps": 7})), tl.Phase(tl.LBFGS())]


@pytest.mark.thorough
def test_phases_are_calls_one_after_the_other():
    found = tl.minimize(rosenbrock, X0, momentum_then_lbfgs())
    first = tl.minimize(rosenbrock, X0, tl.Momentum(1e-4), max_steps=7)
    second = tl.minimize(rosenbrock, first.x, tl.LBFGS())
    np.testing.assert_array_equal(found.x, second.x)
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-5)
    assert (found.status, found.steps) == (second.status, 7 + second.steps)
    for name in ("f", "grad_norm"):
        np.testing.assert_array_equal(found.history[name], np.concatenate([first.history[name], second.history[name]]))
    np.testing.assert_array_equal(found.history["phase"], [0] * 7 + [1] * second.steps)
    np.testing.assert_array_equal(found.history["step"], 1 + np.arange(found.steps))
    assert np.isnan(found.history["step_length"][:7]).all()
    for kind, count in found.evaluations.items():
        assert count == first.evaluations[kind] + second.evaluations[kind]
        assert found.history[f"evaluations/{kind}"][-1] == count


def test_a_plateau_ends_a_phase_where_the_rule_says():
    until = tl.Plateau("f", patience=5, min_delta=0.05)
    found = tl.minimize(rosenbrock, X0, momentum_then_lbfgs(until=until), max_steps=80)
    alone = tl.minimize(rosenbrock, X0, tl.Momentum(1e-4), max_steps=80).history["f"]
    best = np.inf
    for end in range(5, 81, 5):
        window = alone[end - 5 : end].min()
        if not window < best - 0.05:
            break
        best = window
    assert 5 < end < 60
    assert int(np.sum(found.history["phase"] == 0)) == end
    np.testing.assert_allclose(found.history["f"][:end], alone[:end], rtol=1e-9)
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("tests", "status", "phases"),
    [
        ({"f_target": 20.0}, "TARGET_REACHED", {0}),
        ({"gtol": 50.0}, "GRADIENT_TOLERANCE", {0}),
        ({"max_steps": 5}, "FINISHED", {0}),
        ({"max_steps": 9}, "FINISHED", {0, 1}),
        ({"max_evaluations": 12}, "EVALUATIONS_SPENT", {0, 1}),
        ({"xtol": 10.0}, "X_TOLERANCE", {0, 1}),  # of both phases
    ],
)
@pytest.mark.thorough_after(1)
def test_what_ends_the_run_and_what_a_phase(tests, status, phases):
    found = tl.minimize(rosenbrock, X0, momentum_then_lbfgs(), **tests)
    assert (found.status.name, set(found.history["phase"])) == (status, phases)
    assert found.steps <= tests.get("max_steps", 1000)


@pytest.mark.thorough
def test_a_callback_counts_on_and_variables_hold_the_result():
    seen = []
    variable = tf.Variable(X0)
    stop = lambda iterate: seen.append(iterate.step) or iterate.step == 10  # noqa: E731
    found = tl.minimize(lambda: rosenbrock(variable), [variable], momentum_then_lbfgs(), callback=stop)
    assert (found.status, seen) == (tl.Status.STOPPED, list(range(1, 11)))
    np.testing.assert_array_equal(variable.numpy(), found.x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tl.minimize(rosenbrock, X0, []), "a list of Phase"),
        (lambda: tl.minimize(rosenbrock, X0, [tl.LBFGS()]), "a list of Phase"),
        (lambda: tl.minimize(rosenbrock, X0, momentum_then_lbfgs(), state={}), "state= is what one optimizer"),
        (
            lambda: tl.minimize(rosenbrock, X0, momentum_then_lbfgs(until=tl.Plateau("velocity", 3))),
            "the monitor of a Plateau must be one of",
        ),
    ],
)
def test_what_cannot_be_minimised_in_phases(make, words):
    with pytest.raises(ValueError, match=words):
        make()
