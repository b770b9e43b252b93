"""BFGS, SSBFGS and SSBroyden against naive linear algebra: their equations, the secant equation, definiteness."""

import keras
import nist
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights
from stepper import Stepper

from trainloop import BFGS, SSBFGS, ArrayData, SSBroyden, Status, TrainLoop, minimize
from trainloop.algorithms._quasi_newton import QuasiNewton
from trainloop.distributed import shard_over
from trainloop.testing import problems

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

EPS = np.finfo(float).eps


# --- The equations, naively -------------------------------------------------------------------------------


def updated(H, s, y, tau, phi):
    """A member of the family as the papers write it."""
    Hy, sy = H @ y, s @ y
    v = s / sy - Hy / (y @ Hy)
    return (H - np.outer(Hy, Hy) / (y @ Hy) + phi * (y @ Hy) * np.outer(v, v)) / tau + np.outer(s, s) / sy


def member_of_ss_broyden(b, h, n):
    """(theta, tau, phi), as in Al-Baali (1998)."""
    a = max(h * b - 1, EPS)
    rho = min(1, h * (1 - np.sqrt(a / (1 + a))))
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
    sigma = 1 + a * theta
    root = 1.0 if n == 1 else sigma ** (1 / (1 - n))
    oren = min(1, 1 / b)
    tau = oren * min(root, 1 / theta) if theta > 0 else min(oren * root, sigma)
    return theta, tau, (1 - theta) / sigma


# name: (optimizer, its (tau, phi))
MEMBERS = {
    "bfgs": (BFGS, lambda b, h, n: (1, 1)),
    "al_baali": (SSBFGS, lambda b, h, n: (min(1, 1 / b), 1)),
    "oren_luenberger": (lambda **kw: SSBFGS("oren_luenberger", **kw), lambda b, h, n: (1 / b, 1)),
    "ss_broyden": (SSBroyden, lambda b, h, n: member_of_ss_broyden(b, h, n)[1:]),
}


def derived(fun):
    """(f, g) of a function as NumPy."""

    @tf.function(autograph=False)
    def derive(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            f = fun(x)
        return f, tape.gradient(f, x)

    return lambda x: [value.numpy() for value in derive(tf.constant(x))]


def check_steps(make, member, problem, steps, scaled):
    """Every step goes along -H g of a naive H, whose update with the pair of that step is the stored matrix."""
    here, gradient = Stepper(make, problem.fun, problem.x0), derived(problem.fun)
    x, H, fresh = np.array(problem.x0), np.eye(problem.n), True
    for _ in range(steps):
        t, g = float(here.step().logs["step_length"]), gradient(x)[1]
        np.testing.assert_allclose(here.x, x - t * H @ g, rtol=0, atol=1e-8 * max(1, np.abs(x).max()))
        s, y = here.x - x, gradient(here.x)[1] - g
        assert s @ y > 0
        if fresh and scaled:
            H = (s @ y) / (y @ y) * H
        b = s @ np.linalg.solve(H, s) / (s @ y)
        H = updated(H, s, y, *member(b, y @ H @ y / (s @ y), problem.n))
        stored = here.optimizer.state["H"].to_dense().numpy()
        np.testing.assert_allclose(stored, H, rtol=0, atol=1e-6 * np.abs(H).max())
        np.testing.assert_allclose(stored @ y, s, rtol=0, atol=1e-7 * np.abs(s).max())
        np.testing.assert_allclose(stored, stored.T, rtol=0, atol=1e-14 * np.abs(stored).max())
        assert np.linalg.eigvalsh(stored).min() > 0
        x, H, fresh = here.x, stored, False


@pytest.mark.parametrize("name", MEMBERS)
def test_steps_are_those_of_the_equations(name):
    make, member = MEMBERS[name]
    check_steps(make(initial_scaling=False, storage="dense"), member, problems["tanh_network"], 12, scaled=False)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.thorough_after(1)
def test_steps_with_a_first_size_are_those_of_the_equations(name):
    make, member = MEMBERS[name]
    check_steps(make(initial_scaling=True, storage="factored"), member, problems["broyden_tridiagonal"], 8, scaled=True)


@pytest.mark.parametrize("storage", ["dense:0", "dense:4", "factored:40:subspace", "factored:12:dense", "sharded:2"])
@pytest.mark.thorough_after(1)
def test_every_storage_has_the_same_matrix(storage):
    make, member = MEMBERS["ss_broyden"]
    with shard_over(2):
        optimizer = make(initial_scaling=False, storage=storage)
        check_steps(optimizer, member, problems["broyden_tridiagonal"], 8, scaled=False)


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_the_member_of_ss_broyden_is_that_of_the_paper(n):
    rng = np.random.default_rng(n)
    b = 10 ** rng.uniform(-4, 4, 200)
    a = np.where(np.arange(200) % 10 == 0, 0.0, 10 ** rng.uniform(-8, 4, 200))
    thetas = []
    tau, phi = SSBroyden().member(tf.constant(b), tf.constant((1 + a) / b), n)
    for i in range(200):
        theta, expected_tau, expected_phi = member_of_ss_broyden(b[i], (1 + a[i]) / b[i], n)
        assert tau[i].numpy() == pytest.approx(expected_tau, rel=1e-6)
        assert phi[i].numpy() == pytest.approx(expected_phi, rel=1e-6, abs=1e-9)
        thetas.append(theta)
    assert min(thetas) < -0.5 < 0.5 < max(thetas) <= 1


def test_a_huge_difference_of_curvatures_costs_no_digits():
    """h (1 - c) of the paper is zero here, and 1 / rho infinite."""
    b, h = tf.constant(2.0, tf.float64), tf.constant(1e20, tf.float64)
    tau, phi = SSBroyden().member(b, h, 50)
    rho = 1 / 4  # of a -> infinity
    theta = (rho - 1) / 2e20
    assert float(tau) == pytest.approx(min(rho ** (-1 / 49) / 2, rho), rel=1e-12)
    assert float(phi) == pytest.approx((1 - theta) / rho, rel=1e-12)


class FixedMember(QuasiNewton):
    """tau = 1 and a weight theta of DFP."""

    def __init__(self, theta=0.0, name="fixed_member", **kwargs):
        super().__init__("strong_wolfe", 20, False, "dense", name, **kwargs)
        self.theta = theta

    def member(self, b, h, n):
        return tf.ones_like(b), (1 - self.theta) / (1 + (h * b - 1) * self.theta)

    def get_config(self):
        return {"theta": self.theta, "name": self.name}


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.0])
@pytest.mark.thorough_after(1)
def test_theta_leads_from_bfgs_to_dfp(theta):
    """Nocedal and Wright (2006), equations 6.13, 6.19 and 6.32: B of BFGS, and theta times a rank-one matrix."""
    problem = problems["broyden_tridiagonal"]
    here, gradient = Stepper(FixedMember(theta), problem.fun, problem.x0), derived(problem.fun)
    for _ in range(5):
        x, B = here.x, np.linalg.inv(here.optimizer.state["H"].to_dense().numpy())
        here.step()
        s, y = here.x - x, gradient(here.x)[1] - gradient(x)[1]
        Bs, eye = B @ s, np.eye(len(s))
        bfgs = B - np.outer(Bs, Bs) / (s @ Bs) + np.outer(y, y) / (y @ s)
        dfp = (eye - np.outer(y, s) / (y @ s)) @ B @ (eye - np.outer(s, y) / (y @ s)) + np.outer(y, y) / (y @ s)
        expected = (1 - theta) * bfgs + theta * dfp
        found = np.linalg.inv(here.optimizer.state["H"].to_dense().numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


# --- The first size of H ----------------------------------------------------------------------------------


def first_matrix(fun, x0, scaling):
    """H of BFGS after one step in two variables, without its part along s and y."""
    here = Stepper(BFGS(initial_scaling=scaling), fun, x0)
    here.step()
    return here.optimizer.state["H"].to_dense().numpy()


def bowl(curvatures):
    return lambda x: tf.reduce_sum(tf.constant(curvatures, x.dtype) * tf.square(x)) / 2


@pytest.mark.parametrize(
    ("curvature", "constant", "scaling", "size"),
    [
        (50.0, 0.0, True, 1 / 50),
        (50.0, 0.0, False, 1.0),
        (50.0, 0.0, "auto", 1.0),  # f > 0: the first trials bound the steps
        (50.0, -99.0, "auto", 1 / 50),
        (0.02, 0.0, False, 1.0),
        (0.02, 0.0, "auto", 50.0),  # the identity is too small even along y
    ],
)
@pytest.mark.thorough_after(1)
def test_the_rule_for_the_first_size(curvature, constant, scaling, size):
    """The gradient has one direction only, so that the other one keeps what H had at first. Quartic, lest the first
    step find the minimum."""
    fun, end = bowl([curvature, curvature]), 1.0
    H = first_matrix(lambda x: fun(x) + 0.01 * curvature * x[0] ** 4 + constant, [end, 0.0], scaling)
    assert H[1, 1] == pytest.approx(size, rel=0.2)
    assert H[0, 0] == pytest.approx(1 / curvature, rel=0.2)


@pytest.mark.parametrize(("scaling", "above", "times"), [(False, 0, 2.02), ("auto", 0, 1.0), ("auto", 1e11, None)])
def test_a_loss_is_not_expected_to_fall_below_zero(scaling, above, times):
    """In a steep valley the first trial is where a parabola, or the tangent, would reach zero; where the parabola of
    the full step stays above, it is that step."""
    trials = []

    def evaluate(x):
        trials.append(x)
        return np.sum([1.0, 1e8] * x**2) + above, np.array([2.0, 2e8]) * x

    def fun(x):
        return tf.numpy_function(evaluate, [x], [x.dtype] * 2)

    x = np.array([1.0, 1e-3])
    here = with_state(BFGS(initial_scaling=scaling), fun, x, updates=1)
    trials.clear()
    here.step()
    f, g = evaluate(x)
    np.testing.assert_allclose(trials[1], x - (times * f / (g @ g) if times else 1) * g, rtol=1e-9)


# --- Restarts ---------------------------------------------------------------------------------------------


def with_state(optimizer, fun, x0, **values):
    """A stepper whose optimizer has these values in its state."""
    here, saved = Stepper(optimizer, fun, x0), {}
    here.optimizer.save_own_variables(saved)
    assert values.keys() <= {name.removeprefix("state.") for name in saved}
    here.optimizer.load_own_variables({**saved, **{f"state.{name}": value for name, value in values.items()}})
    return here


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("broken", [-1.0, np.nan])
@pytest.mark.thorough_after(1)
def test_a_matrix_that_is_not_definite_starts_again(name, broken):
    optimizer = MEMBERS[name][0](storage="factored", initial_scaling=False)
    here = with_state(optimizer, bowl([1.0, 3.0]), [1.0, 1.0], **{"H.diagonal": broken, "updates": 7})
    result = here.step()
    assert int(result.status) == Status.RUNNING
    assert int(result.logs["updates"]) == 1
    step = here.x - 1
    np.testing.assert_allclose(step / np.linalg.norm(step), -np.array([1, 3]) / np.sqrt(10), rtol=1e-12)
    assert np.linalg.eigvalsh(here.optimizer.state["H"].to_dense().numpy()).min() > 0


def test_a_matrix_that_is_found_to_be_indefinite_by_y_starts_again():
    """It is positive along g and negative along y: H = I - 4 e2 e2'."""
    H = np.diag([1.0, -3.0])

    def fun(x):
        return tf.square(x[0]) / 2 + 100 * x[0] * x[1] + 6000 * tf.square(x[1])

    here = with_state(SSBroyden(storage="factored:5:restart"), fun, [1.0, -100 / 12000], updates=7)
    saved = {}
    here.optimizer.save_own_variables(saved)
    left = saved["state.H.left"].copy()
    left[0] = [0.0, 1.0]
    coefficients = saved["state.H.coefficients"].copy()
    coefficients[0] = -4.0
    here.optimizer.load_own_variables(
        {**saved, "state.H.left": left, "state.H.coefficients": coefficients, "state.H.rank": np.int32(1)}
    )
    np.testing.assert_allclose(here.optimizer.state["H"].to_dense(), H)
    result = here.step()
    assert int(result.logs["updates"]) == 0
    np.testing.assert_array_equal(here.optimizer.state["H"].to_dense(), np.eye(2))
    assert int(here.step().status) == Status.RUNNING


# --- Whole runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [(SSBFGS, "wood"), (lambda: SSBFGS("oren_luenberger"), "helical_valley"), (SSBroyden, "biggs_exp6")],
)
@pytest.mark.thorough_after(1)
def test_problems_are_solved(make, name):
    problem = problems[name]
    result = minimize(problem.fun, problem.x0, make(), gtol=1e-8, max_steps=500)
    assert result.status == Status.GRADIENT_TOLERANCE
    assert min(abs(result.f - m) for m in (problem.minimum, *problem.other_minima)) < 1e-8


def test_one_unknown_is_enough():
    result = minimize(lambda x: tf.cosh(x[0] - 3), [1.0], SSBroyden(), gtol=1e-9)
    np.testing.assert_allclose(result.x, [3], atol=1e-8)


@pytest.mark.parametrize("storage", ["dense", "factored", "factored:10:restart"])
@pytest.mark.thorough_after(1)
def test_a_network_learns_and_a_saved_run_goes_on_with_the_same_bits(tmp_path, storage):
    x, y = blobs()
    data = ArrayData(x, y, batch_size=None)

    def loop():
        return TrainLoop(dense_net(), SSBroyden(storage=storage), crossentropy())

    whole, first, rest = loop(), loop(), loop()
    result = whole.run(data, steps=12)
    assert result.history["loss"][-1] < 0.1 * result.history["loss"][0]
    saved = {}
    first.run(data, steps=7)
    first.optimizer.save_own_variables(saved)
    rest.model.set_weights(first.model.get_weights())
    rest.optimizer.build(rest.model.trainable_variables)
    rest.optimizer.load_own_variables(saved)
    rest.run(data, steps=5)
    np.testing.assert_array_equal(weights(rest.model), weights(whole.model))


# --- Side by side with SciPy ------------------------------------------------------------------------------

# name: (function, start, minima, first the smallest)
PROBLEMS = {p.name: (p.fun, p.x0, (p.minimum, *p.other_minima)) for p in problems.values() if p.smooth} | {
    f"{data.name} {number}": (lambda b, data=data: tf.reduce_sum(data.residuals(b) ** 2), start, (data.squares,))
    for data in map(nist.load, nist.MODELS)
    for number, start in enumerate(data.starts, 1)
}


def evaluations_of_both(fun, x0, minima):
    """Evaluations of BFGS and of SciPy's until f is within 1e-6 of the way to the minimum at which SciPy's ends, or to
    the smallest where it ends at none; infinity for the one that does not get there."""
    derive, values = derived(fun), []

    def recorded(x):
        f, g = derive(x)
        values.append(float(f))
        return values[-1], g

    with np.errstate(all="ignore"):
        scipy.optimize.minimize(recorded, x0, jac=True, method="BFGS", options={"gtol": 0, "maxiter": 1000})
    targets = [minimum + 1e-6 * (values[0] - minimum) for minimum in minima]
    target = next((target for target in targets if np.nanmin(values) <= target), targets[0])
    reached = np.flatnonzero(np.array(values) <= target)
    found = minimize(fun, x0, BFGS(), gtol=0, f_target=target, max_evaluations=1000)
    return found.evaluations["f"] if found.f <= target else np.inf, 1 + reached[0] if reached.size else np.inf


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::scipy.optimize.OptimizeWarning")
@pytest.mark.parametrize("names", [("tanh_network", "Rat43 1", "biggs_exp6"), tuple(PROBLEMS)], ids=["steep", "all"])
@pytest.mark.thorough
def test_no_problem_takes_twice_the_evaluations_of_scipy(names):
    """In the first of the steep ones, d leads onto plateaus along curvatures that H has not met."""
    ours, theirs = np.transpose([evaluations_of_both(*PROBLEMS[name]) for name in names])
    assert np.sum(np.isfinite(ours)) >= np.sum(np.isfinite(theirs))
    both = np.isfinite(ours) & np.isfinite(theirs)
    ratios = dict(zip(np.array(names)[both], ours[both] / theirs[both], strict=True))
    assert {name: ratio for name, ratio in ratios.items() if ratio > 2} == {}
    assert np.median(list(ratios.values())) <= 1


# --- Constructors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BFGS(initial_scaling="yes"), "initial_scaling must be True, False or 'auto', received 'yes'"),
        (lambda: SSBroyden(initial_scaling=1), "initial_scaling must be True, False or 'auto', received 1"),
        (lambda: SSBFGS("al-baali"), "scaling must be one of .*did you mean 'al_baali'"),
        (lambda: SSBroyden(storage="dens"), "storage must be one of"),
    ],
)
def test_bad_arguments_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: BFGS(initial_scaling=False), lambda: SSBFGS("oren_luenberger")])
def test_settings_survive_being_saved(make):
    again = keras.optimizers.deserialize(keras.optimizers.serialize(make()))
    assert again.get_config() == make().get_config()
    assert vars(again).get("scaling") == vars(make()).get("scaling")
    assert again.initial_scaling is False
