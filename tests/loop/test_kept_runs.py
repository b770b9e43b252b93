"""Minimisations that are like an earlier one compile nothing, and whatever has changed is seen."""

import functools
import gc
import types
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers.schedules import ExponentialDecay

from trainloop import (
    BFGS,
    CMAES,
    LBFGS,
    SAM,
    Adam,
    BestSoFar,
    GlobalVectorOptimizer,
    LeastSquares,
    Momentum,
    SharedMatrix,
    ShorR,
    SimpleGD,
    SSBroyden,
    Status,
    minimize,
)
from trainloop.distributed import shard_over
from trainloop.loop import kept_runs
from trainloop.loop.fingerprint import Fingerprint, NoFingerprintError

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

X0 = np.array([2.0, -1.0, 0.5])
CENTRE = 1.0


@pytest.fixture(autouse=True)
def _nothing_kept():
    kept_runs.clear()
    yield
    kept_runs.clear()


class Traced:
    """How often the body of a function was traced, counted outside of it."""

    def __init__(self):
        self.count = 0


TRACED = Traced()


def valley(x):
    return tf.reduce_sum(10 * tf.square(x[1:] - tf.square(x[:-1]))) + tf.reduce_sum(tf.square(1 - x))


def around_centre(x):
    return tf.reduce_sum(tf.square(x - CENTRE))


def compiled_in(call, monkeypatch):
    """(how many functions a call compiles, what it returns)."""
    made, original = [], tf.function

    def counting(*args, **kwargs):
        made.append(args)
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(tf, "function", counting)
        result = call()
    return len(made), result


def assert_same(one, other):
    np.testing.assert_array_equal(one.x, other.x)
    assert (one.f, one.status, one.steps, one.evaluations) == (other.f, other.status, other.steps, other.evaluations)
    for name, column in one.history.items():
        np.testing.assert_array_equal(other.history[name], column)


# --- A second call ----------------------------------------------------------------------------------------

METHODS = {
    "lbfgs": LBFGS,
    "bfgs-dense": lambda: BFGS(storage="dense:2"),
    "ssbroyden-factored": lambda: SSBroyden(storage="factored"),
    "bfgs-restart": lambda: BFGS(storage="factored:6:restart"),
    "bfgs-then-dense": lambda: BFGS(storage="factored:6:dense"),
    "shor_r": lambda: ShorR(storage="factored"),
    "adam": lambda: Adam(0.1),
    "schedule": lambda: Momentum(ExponentialDecay(0.001, 5, 0.9)),
    "best": lambda: BestSoFar(SAM(SimpleGD(0.001))),
    "cmaes": lambda: CMAES(seed=3),
    "sharded": lambda: BFGS(storage="sharded"),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.thorough_after(1)
def test_a_second_call_compiles_nothing_and_gives_the_same_bits(name, monkeypatch):
    optimizer = METHODS[name]()

    def call(x0=X0, optimizer=optimizer):
        return minimize(valley, x0, optimizer, max_steps=25)

    count, first = compiled_in(call, monkeypatch)
    assert count > 0
    assert compiled_in(lambda: call(-X0, METHODS[name]()), monkeypatch)[0] == 0
    count, again = compiled_in(call, monkeypatch)
    assert count == 0
    assert_same(first, again)


def test_another_tolerance_for_the_gradient_or_number_of_steps_needs_no_compiling(monkeypatch):
    minimize(valley, X0, LBFGS(), max_steps=3)
    count, result = compiled_in(lambda: minimize(valley, X0, LBFGS(), gtol=1e-9), monkeypatch)
    assert (count, result.status) == (0, Status.GRADIENT_TOLERANCE)
    assert result.history["grad_norm"].min() > 1e-9


@pytest.mark.parametrize(
    "other",
    [
        lambda: minimize(valley, X0[:2], LBFGS()),
        lambda: minimize(valley, X0.astype("float32"), LBFGS()),
        lambda: minimize(valley, X0, LBFGS(m=4)),
        lambda: minimize(valley, X0, LBFGS(), ftol=1e-9),
        lambda: minimize(valley, X0, LBFGS(), max_evaluations=50),
        lambda: minimize(around_centre, X0, LBFGS()),
        lambda: minimize(LeastSquares(lambda x: x), X0, LBFGS()),
    ],
)
@pytest.mark.thorough_after(1)
def test_whatever_is_compiled_otherwise_is_compiled_again(other, monkeypatch):
    minimize(valley, X0, LBFGS(), max_steps=2)
    count, result = compiled_in(other, monkeypatch)
    assert count > 0
    assert result.success


@pytest.mark.thorough
def test_functions_made_anew_of_the_same_code_and_values_are_the_same_function(monkeypatch):
    def call(power):
        return minimize(lambda x: tf.reduce_sum(tf.abs(x) ** power), X0, LBFGS(), max_steps=3)

    call(2.0)
    assert compiled_in(lambda: call(2.0), monkeypatch)[0] == 0
    assert compiled_in(lambda: call(4.0), monkeypatch)[0] > 0


def test_the_optimizer_that_is_given_is_left_as_it_was():
    optimizer = LBFGS()
    first = minimize(valley, X0, optimizer, max_steps=4)
    minimize(valley, X0, optimizer, max_steps=9)
    assert not optimizer.built
    assert first.state["iterations"] == 4


@pytest.mark.thorough
def test_a_call_inside_of_a_callback_has_a_run_of_its_own():
    inner = []

    def callback(iterate):
        if iterate.step == 2:
            inner.append(minimize(valley, X0, LBFGS()))

    result = minimize(valley, X0, LBFGS(), callback=callback)
    assert_same(result, inner[0])


# --- What has changed is seen -----------------------------------------------------------------------------


def minimiser(fun):
    return minimize(fun, X0, LBFGS(), gtol=1e-10).x


@pytest.mark.thorough
def test_a_global_number_that_is_assigned_anew(monkeypatch):
    np.testing.assert_allclose(minimiser(around_centre), 1, atol=1e-9)
    monkeypatch.setitem(globals(), "CENTRE", 3.0)
    np.testing.assert_allclose(minimiser(around_centre), 3, atol=1e-9)


@pytest.mark.thorough
def test_a_global_number_that_a_function_further_inside_reads(monkeypatch):
    def fun(x):
        return 2 * around_centre(x)

    np.testing.assert_allclose(minimiser(fun), 1, atol=1e-9)
    monkeypatch.setitem(globals(), "CENTRE", 3.0)
    np.testing.assert_allclose(minimiser(fun), 3, atol=1e-9)


@pytest.mark.thorough
def test_a_closure_an_array_and_a_list_that_are_written_into():
    centre, array, entries = 1.0, np.ones(3), [1.0]

    def fun(x):
        return sum(tf.reduce_sum(tf.square(x - c)) for c in (centre, array, entries[0])) / 3

    def expected():
        return (centre + array + entries[0]) / 3

    np.testing.assert_allclose(minimiser(fun), expected(), atol=1e-9)
    centre = 2.0
    np.testing.assert_allclose(minimiser(fun), expected(), atol=1e-9)
    array[:] = [0.0, 3.0, 1.0]
    np.testing.assert_allclose(minimiser(fun), expected(), atol=1e-9)
    entries[0] = 7.0
    np.testing.assert_allclose(minimiser(fun), expected(), atol=1e-9)


@pytest.mark.thorough
def test_defaults_attributes_modules_and_partial_arguments():
    module = types.ModuleType("settings")
    module.centre = 1.0

    def fun(x, shift=0.0):
        return tf.reduce_sum(tf.square(x - module.centre - shift))

    np.testing.assert_allclose(minimiser(fun), 1, atol=1e-9)
    module.centre = 2.0
    np.testing.assert_allclose(minimiser(fun), 2, atol=1e-9)
    fun.__defaults__ = (1.0,)
    np.testing.assert_allclose(minimiser(fun), 3, atol=1e-9)
    np.testing.assert_allclose(minimiser(functools.partial(fun, shift=5.0)), 7, atol=1e-9)
    np.testing.assert_allclose(minimiser(functools.partial(fun, shift=6.0)), 8, atol=1e-9)


@pytest.mark.thorough
def test_a_variable_is_read_when_it_is_needed(monkeypatch):
    centre = tf.Variable(np.ones(3))

    def fun(x):
        return tf.reduce_sum(tf.square(x - centre))

    np.testing.assert_allclose(minimiser(fun), 1, atol=1e-9)
    centre.assign([1.0, 2.0, 3.0])
    count, found = compiled_in(lambda: minimiser(fun), monkeypatch)
    np.testing.assert_allclose(found, [1, 2, 3], atol=1e-9)
    assert count == 0


class Mutable:
    """An object of which nobody knows when it changes."""

    def __init__(self):
        self.centre = 1.0

    def __call__(self, x):
        return tf.reduce_sum(tf.square(x - self.centre))


@pytest.mark.parametrize("form", [lambda o: o, lambda o: o.__call__, lambda o: lambda x: o(x)])
@pytest.mark.thorough_after(1)
def test_objects_that_may_change_unseen_are_compiled_every_time(form):
    changing = Mutable()
    np.testing.assert_allclose(minimiser(form(changing)), 1, atol=1e-9)
    changing.centre = 2.0
    np.testing.assert_allclose(minimiser(form(changing)), 2, atol=1e-9)


class HeavyBall(GlobalVectorOptimizer):
    """A user's own; get_config leaves the momentum out where `complete` is False."""

    complete = True

    def __init__(self, learning_rate=0.02, momentum=0.5, name="heavy_ball", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = momentum

    def init_state(self, x):
        return {"velocity": tf.zeros_like(x)}

    def update(self, x, g, state):
        velocity = self.momentum * state["velocity"] + g
        return x - self.learning_rate * velocity, {"velocity": velocity}

    def get_config(self):
        return {**super().get_config(), **({"momentum": self.momentum} if self.complete else {})}


class Forgetful(HeavyBall):
    complete = False


def test_optimizers_of_ones_own_are_kept_where_their_configuration_is_complete(monkeypatch):
    results = []
    for cls in (HeavyBall, Forgetful):
        results.append(minimize(valley, X0, cls(momentum=0.7), max_steps=6))
        count, again = compiled_in(lambda cls=cls: minimize(valley, X0, cls(momentum=0.7), max_steps=6), monkeypatch)
        assert_same(results[-1], again)
        assert (count == 0) == cls.complete
    assert_same(*results)


def test_functions_as_learning_rates_are_looked_into():
    rates = [0.1]

    def fun(x):
        return tf.reduce_sum(tf.square(x))

    for rate in (0.1, 0.2):
        rates[0] = rate
        result = minimize(fun, X0, SimpleGD(lambda: rates[0]), max_steps=1)
        np.testing.assert_allclose(result.x, (1 - 2 * rate) * X0, rtol=1e-12)


def test_code_that_runs_in_python_writes_where_it_is_told_to():
    calls = [], []
    for log in calls:

        def evaluate(x, log=log):
            log.append(x)
            return np.sum(x**2), 2 * x

        def fun(x, evaluate=evaluate):
            return tf.numpy_function(evaluate, [x], [x.dtype] * 2)

        minimize(fun, X0, SimpleGD(0.1), max_steps=3)
    assert len(calls[0]) == len(calls[1]) == 4


# --- Memory -----------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_functions_are_not_kept_alive():
    class Data(np.ndarray):
        pass

    def call():
        data = np.ones(3).view(Data)

        def fun(x):
            return tf.reduce_sum(tf.square(x - data))

        minimize(fun, X0, LBFGS(), max_steps=2)
        return weakref.ref(fun), weakref.ref(data)

    references = call()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.thorough
def test_no_more_than_a_few_and_no_large_ones_are_kept(monkeypatch):
    monkeypatch.setattr(kept_runs, "_MOST", 2)
    for power in (2.0, 3.0, 4.0):
        minimize(lambda x, power=power: tf.reduce_sum(tf.abs(x) ** power), X0, SimpleGD(0.01), max_steps=1)
    assert len(kept_runs._waiting) == 2
    monkeypatch.setattr(kept_runs, "_MOST_BYTES", 2 * 8 * 3)
    minimize(valley, X0, SimpleGD(0.01), max_steps=1)
    assert len(kept_runs._waiting) == 1
    minimize(valley, X0, BFGS(storage="dense"), max_steps=1)
    assert len(kept_runs._waiting) == 1


def test_inside_of_strategies_and_shards_nothing_is_kept():
    with shard_over(2):
        result = minimize(valley, X0, BFGS(storage="sharded"), gtol=1e-9)
    assert result.success
    assert not kept_runs._waiting


# --- Going on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.thorough_after(1)
def test_a_run_goes_on_from_the_state_of_an_earlier_one(name):
    whole = minimize(valley, X0, METHODS[name](), max_steps=20, gtol=None)
    first = minimize(valley, X0, METHODS[name](), max_steps=8)
    if name == "best":  # whose x is not where it stands
        first.x[:] = X0
    rest = minimize(valley, first.x, METHODS[name](), max_steps=12, state=first.state)
    if name != "best":
        np.testing.assert_allclose(rest.x, whole.x, rtol=1e-9, atol=1e-12)
    assert first.steps + rest.steps == whole.steps
    assert int(rest.state["iterations"]) == whole.steps


@pytest.mark.thorough
def test_a_state_belongs_to_its_result_however_many_follow():
    first = minimize(valley, X0, LBFGS(), max_steps=3)
    other = minimize(valley, X0, LBFGS(), max_steps=6)
    assert (int(first.state["iterations"]), int(other.state["iterations"])) == (3, 6)
    assert not np.array_equal(first.state["state.history.rows"], other.state["state.history.rows"])
    first.state["state.pairs"][...] = 0
    assert int(minimize(valley, X0, LBFGS(), max_steps=3).state["state.pairs"]) == 3


def test_a_learning_rate_is_a_setting_and_no_part_of_the_state():
    first = minimize(valley, X0, Momentum(0.01), max_steps=3)
    assert not [name for name in first.state if "rate" in name]
    rest = minimize(valley, first.x, Momentum(0.001), max_steps=1, state=first.state)
    velocity = 0.9 * first.state["state.velocity"] - 0.001 * rest_gradient(first.x)
    np.testing.assert_allclose(rest.x, first.x + velocity, rtol=1e-12)


def rest_gradient(x):
    with tf.GradientTape() as tape:
        x = tf.constant(x)
        tape.watch(x)
        f = valley(x)
    return tape.gradient(f, x).numpy()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: minimize(valley, X0, Adam(), max_steps=1).state, "the saved state is another optimizer's"),
        (
            lambda: minimize(valley, X0[:2], LBFGS(), max_steps=1).state,
            "state does not fit .* pass the state of a run of this optimizer",
        ),
        (lambda: 3, "state must be that of an earlier result, as in state=result.state, received int"),
    ],
)
@pytest.mark.thorough_after(1)
def test_the_state_of_something_else_is_rejected(state, message):
    with pytest.raises(ValueError, match=message):
        minimize(valley, X0, LBFGS(), state=state())
    assert minimize(valley, X0, LBFGS()).success


# --- The walk itself --------------------------------------------------------------------------------------


def test_numbers_of_another_type_are_other_numbers():
    prints = [Fingerprint().of(value) for value in (1, 1.0, True, np.float32(1), "1", 0.0, -0.0, None)]
    assert len(set(prints)) == len(prints)


def test_functions_that_call_themselves_have_a_fingerprint():
    def endless(x, k=3):
        return x if k == 0 else endless(x, k - 1)

    assert Fingerprint().of(endless) == Fingerprint().of(endless)


@pytest.mark.parametrize("value", [object(), SharedMatrix.identity(2), np.array([object()]), {1, 2}, iter([])])
def test_what_is_not_known_has_none(value):
    with pytest.raises(NoFingerprintError):
        Fingerprint().of(value)


# --- Closures over variables ------------------------------------------------------------------------------


class Bowl(tf.Module):
    """Around a centre that is plain Python, from where its point is."""

    _shift = 0.0

    def __init__(self):
        self.centre, self.point = 1.0, tf.Variable(np.zeros(3))

    def height(self):
        return tf.reduce_sum(tf.square(self.point - self.centre - self._shift))


def test_a_method_of_a_module_compiles_once_and_again_when_an_attribute_changes(monkeypatch):
    bowl = Bowl()

    def call():
        bowl.point.assign(X0)
        return minimize(bowl.height, [bowl.point], LBFGS())

    count, first = compiled_in(call, monkeypatch)
    assert count > 0
    count, again = compiled_in(call, monkeypatch)
    assert count == 0
    assert_same(first, again)
    np.testing.assert_array_equal(bowl.point, again.x)
    bowl.centre = 2.0
    np.testing.assert_allclose(call().x, 2, atol=1e-9)
    monkeypatch.setattr(Bowl, "_shift", 1.0)
    np.testing.assert_allclose(call().x, 3, atol=1e-9)


def test_a_closure_is_known_by_its_variables_and_by_what_it_reads(monkeypatch):
    a, b, scale = keras.Variable(3.0, dtype="float64"), tf.Variable(2.0, dtype=tf.float64), np.ones(1)

    def closure():
        return tf.reduce_sum(scale) * (a.value - 1) ** 2 + (b - a.value) ** 2

    def call(variables):
        a.assign(3.0)
        b.assign(2.0)
        return compiled_in(lambda: minimize(closure, variables, LBFGS()), monkeypatch)

    count, both = call([a, b])
    np.testing.assert_allclose(both.x, 1, atol=1e-6)
    assert call([a, b])[0] == 0 < count
    np.testing.assert_allclose(call([b])[1].x, 3, atol=1e-6)
    np.testing.assert_allclose(call([a])[1].x, 1.5, atol=1e-6)
    scale[:] = 3.0
    np.testing.assert_allclose(call([a])[1].x, 1.25, atol=1e-6)


def test_a_closure_that_writes_begins_with_what_is_there_now():
    a, shift = tf.Variable([0.0], dtype=tf.float64), tf.Variable(1.0, dtype=tf.float64)

    def closure():
        return tf.reduce_sum((a - shift.assign_add(1.0)) ** 2)

    for start in (1.0, 4.0):
        shift.assign(start)
        np.testing.assert_allclose(minimize(closure, [a], LBFGS()).x, start + 1, atol=1e-6)
        assert float(shift) == start
