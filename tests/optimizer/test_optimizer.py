"""The contract between the base class, its subclasses, Keras and the loop."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, stateful_net, weights

from trainloop import ArrayData, GlobalVectorOptimizer, SharedMatrix, SimpleGD, Status, TestGD, TrainLoop


class Probe(GlobalVectorOptimizer):
    """Gradient descent whose parts a test can replace."""

    def __init__(self, learning_rate=0.1, state=None, update=None, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self._make = state or (lambda x: {"velocity": tf.zeros_like(x), "inner": {"count": tf.constant(0)}})
        self._step = update

    def init_state(self, x):
        return self._make(x)

    def update(self, x, g, state):
        if self._step:
            return self._step(self, x, g, state)
        inner = {"count": state["inner"]["count"] + 1}
        return x - self.learning_rate * g, {"velocity": state["velocity"] + g, "inner": inner}


def variables(*shapes):
    return [keras.Variable(np.full(shape, 1.0), name=f"v{i}") for i, shape in enumerate(shapes)]


def values(vs):
    return [v.numpy() for v in vs]


# --- One gradient, all variables -----------------------------------------------------------------------


def test_a_step_moves_every_variable_by_its_gradient():
    vs = variables((2, 3), (), (4,))
    g = [np.arange(6.0).reshape(2, 3), np.array(2.0), np.arange(4.0)]
    SimpleGD(0.5).apply(g, vs)
    for before, value, gradient in zip([1.0] * 3, values(vs), g, strict=True):
        np.testing.assert_array_equal(value, before - 0.5 * gradient)


def test_variables_may_come_in_any_order():
    vs = variables((2,), (3,))
    optimizer = SimpleGD(1.0)
    optimizer.build(vs)
    optimizer.apply_gradients([(np.full(3, 5.0), vs[1]), (np.full(2, 7.0), vs[0])])
    np.testing.assert_array_equal(vs[0], np.full(2, -6.0))
    np.testing.assert_array_equal(vs[1], np.full(3, -4.0))


def test_a_missing_gradient_is_zero_and_an_embedding_gradient_is_summed():
    vs = variables((4, 2), (3,))
    rows = tf.IndexedSlices(tf.ones([3, 2], tf.float64), tf.constant([1, 3, 1]))
    with pytest.warns(UserWarning, match="v1"):
        SimpleGD(1.0).apply([rows, None], vs)
    np.testing.assert_array_equal(vs[0], [[1, 1], [-1, -1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(vs[1], np.ones(3))


def test_all_gradients_missing_is_an_error():
    with pytest.raises(ValueError, match="v0, v1"):
        SimpleGD().apply([None, None], variables((2,), (3,)))


@pytest.mark.parametrize("change", ["fewer", "other"])
def test_other_variables_than_at_build_are_refused(change):
    vs = variables((2,), (3,))
    optimizer = SimpleGD()
    optimizer.build(vs)
    given = vs[:1] if change == "fewer" else [vs[0], *variables((3,))]
    with pytest.raises(ValueError, match="make a new optimizer"):
        optimizer.apply([np.zeros(v.shape) for v in given], given)


def test_nested_state_is_kept_and_readable():
    vs = variables((2,), (1,))
    optimizer = Probe()
    for _ in range(3):
        optimizer.apply([np.array([1.0, 2.0]), np.array([4.0])], vs)
    np.testing.assert_array_equal(optimizer.state["velocity"], [3, 6, 12])
    assert int(optimizer.state["inner"]["count"]) == 3
    assert int(optimizer.iterations) == 3


@pytest.mark.thorough
def test_building_in_a_compiled_function_works():
    vs = variables((2,))
    optimizer = Probe()

    @tf.function
    def step():
        optimizer.apply([tf.ones([2], tf.float64)], vs)

    step()
    step()
    assert int(optimizer.state["inner"]["count"]) == 2


# --- Learning rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 1.0, np.float32(1), keras.optimizers.schedules.ExponentialDecay(1.0, 100, 1.0)])
def test_learning_rates_of_every_kind(rate):
    vs = variables((2,))
    SimpleGD(rate).apply([np.full(2, 3.0)], vs)
    np.testing.assert_array_equal(vs[0], np.full(2, -2.0))


def test_a_schedule_counts_steps():
    vs = variables((1,))
    optimizer = SimpleGD(keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25]))
    for _ in range(3):
        optimizer.apply([np.ones(1)], vs)
    assert vs[0].numpy()[0] == 1 - (1.0 + 0.5 + 0.25)


def test_inside_update_the_rate_has_the_dtype_of_x():
    seen = []

    def update(self, x, g, state):
        seen.append(self.learning_rate)
        return x - g * self.learning_rate, state

    for dtype in ("float32", "float64"):
        v = keras.Variable(np.ones(2), dtype=dtype)
        schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
        for rate in (0.5, schedule):
            Probe(rate, update=update).apply([np.ones(2)], [v])
            assert seen[-1].dtype == dtype


def test_the_rate_can_be_set():
    optimizer = SimpleGD(0.1)
    optimizer.learning_rate = 0.5
    vs = variables((1,))
    optimizer.apply([np.ones(1)], vs)
    assert vs[0].numpy()[0] == 0.5


def test_a_method_without_a_rate_has_none_to_set():
    with pytest.raises(ValueError, match="no learning rate"):
        TestGD().learning_rate = 0.1


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), "sgd", True, [0.1]])
def test_bad_rates_are_refused(rate):
    with pytest.raises(ValueError, match="learning_rate"):
        SimpleGD(rate)


# --- Clipping and failures -----------------------------------------------------------------------------


def test_global_clipnorm_shortens_the_whole_gradient():
    vs = variables((2,), (1,))
    g = [np.array([3.0, 0.0]), np.array([4.0])]
    SimpleGD(1.0, global_clipnorm=1.0).apply(g, vs)
    np.testing.assert_allclose(vs[0], [1 - 0.6, 1.0], rtol=1e-15)
    np.testing.assert_allclose(vs[1], [1 - 0.8], rtol=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    vs = variables((2,), (1,))
    optimizer = Probe()
    optimizer.apply([np.ones(2), np.ones(1)], vs)
    before, state = values(vs), optimizer.state
    optimizer.apply([np.array([1.0, bad]), np.ones(1)], vs)
    np.testing.assert_equal(values(vs), before)
    np.testing.assert_array_equal(optimizer.state["velocity"], state["velocity"])
    assert int(optimizer.iterations) == 1
    assert optimizer.skipped_steps == 1


def test_fit_tells_at_its_end_what_it_did_not_do():
    x, y = blobs()
    x[3] = np.inf
    model = dense_net()
    model.compile(SimpleGD(), loss=crossentropy())
    with pytest.warns(UserWarning, match="2 steps were not taken; the last one because .* gradient"):
        model.fit(x, y, batch_size=48, epochs=2, shuffle=False, verbose=0)
    assert np.all(np.isfinite(weights(model)))
    assert int(model.optimizer.iterations) == 2


def test_a_large_but_finite_float32_gradient_is_taken(float32):
    v = keras.Variable(np.zeros(2))
    SimpleGD(1e-20).apply([np.array([1e20, 1e20], "float32")], [v])
    np.testing.assert_allclose(v, [-1, -1], rtol=1e-6)


class Fixed:
    """An objective with given f and g."""

    def __init__(self, f, g):
        self.f, self.g = tf.constant(f, tf.float64), tf.constant(g, tf.float64)

    def first_pass(self):
        return self.f, self.g


@pytest.mark.parametrize(
    ("f", "g", "rate", "status"),
    [
        (1.0, [1.0], 0.1, Status.RUNNING),
        (np.nan, [1.0], 0.1, Status.NONFINITE_LOSS),
        (np.inf, [np.nan], 0.1, Status.NONFINITE_LOSS),
        (1.0, [-np.inf], 0.1, Status.NONFINITE_GRADIENT),
        (1.0, [1e200], 1e200, Status.NONFINITE_STEP),
    ],
)
def test_a_step_tells_its_status_and_commits_only_what_is_finite(f, g, rate, status):
    vs = variables((1,))
    optimizer = Probe(rate)
    optimizer.build(vs)
    result = optimizer.step(Fixed(f, g))
    assert int(result.status) == status
    assert list(result.logs) == ["loss", "grad_norm", "learning_rate", "inner/count"]
    assert (vs[0].numpy()[0] == 1.0) == status.failed
    assert int(optimizer.iterations) == (0 if status.failed else 1)


def test_a_method_can_end_by_its_status():
    def update(self, x, g, state):
        return x - g, {"status": tf.constant(Status.CONVERGED, tf.int32)}

    vs = variables((1,))
    optimizer = Probe(state=lambda x: {"status": tf.constant(0)}, update=update)
    optimizer.build(vs)
    assert int(optimizer.step(Fixed(1.0, [1.0])).status) == Status.CONVERGED
    assert vs[0].numpy()[0] == 0.0  # ended well: the last step counts


# --- The contract of update ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (lambda s, x, g, state: x, ["Probe.update", "(x_new, state)"]),
        (lambda s, x, g, state: (x[:1], state), ["x_new", "(3,)", "(1,)"]),
        (lambda s, x, g, state: (tf.cast(x, tf.float32), state), ["x_new", "float64", "float32"]),
        (lambda s, x, g, state: (x, {"velocity": g}), ["Probe.update", "inner/count", "['velocity']"]),
        (lambda s, x, g, state: (x, {**state, "extra": g}), ["extra"]),
        (lambda s, x, g, state: (x, {**state, "velocity": g[:2]}), ["velocity", "(3,)", "(2,)"]),
        (lambda s, x, g, state: (x, {**state, "velocity": tf.cast(g, tf.float32)}), ["velocity", "float32"]),
        (lambda s, x, g, state: (x, [g]), ["dict", "list"]),
    ],
)
def test_what_update_returns_is_checked_while_tracing(update, words):
    with pytest.raises(ValueError, match="Probe") as caught:
        Probe(update=update).apply([np.ones(3)], variables((3,)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda g: g.numpy(), "no attribute 'numpy'"),
        (float, "SymbolicTensor"),
        (np.linalg.norm, "to a numpy array"),
        (lambda g: 1.0 if g[0] > 0 else 2.0, "as a Python `bool`"),
        (len, "len is not well defined"),
    ],
)
def test_values_that_compiled_code_does_not_have_are_said_to_be_there_in_eager_steps(ask, says):
    optimizer, vs = Probe(update=lambda s, x, g, state: (x * ask(g), state)), variables((3,))
    where = rf"Probe.update at {re.escape(__file__)}:\d+ in \S+"
    with pytest.raises(ValueError, match=f"{where} asks in Python for the value .* eager=True") as caught:
        tf.function(lambda g: optimizer.apply([g], vs), autograph=False)(tf.ones(3))
    assert says in str(caught.value)


def test_other_errors_of_update_stay_themselves():
    with pytest.raises(TypeError, match="can't multiply sequence"):
        Probe(update=lambda s, x, g, state: (x + "1" * {}, state)).apply([tf.ones(3)], variables((3,)))


@pytest.mark.parametrize("key", ["loss", "step", "epoch", "samples", "grad_norm", "a/b", "", 3])
def test_state_keys_that_the_log_needs_are_refused(key):
    with pytest.raises(ValueError, match="state key"):
        Probe(state=lambda x: {key: x}).build(variables((2,)))


def test_a_shared_matrix_in_the_state_is_committed():
    def update(self, x, g, state):
        return x - state["B"] @ g, {"B": state["B"].add_symmetric(g, 1.0).scale(0.5)}

    for storage in ("dense", "factored"):
        vs = variables((2,))

        def identity(x, storage=storage):
            return {"B": SharedMatrix.identity(2, dtype=x.dtype, storage=storage)}

        optimizer = Probe(state=identity, update=update)
        reference = np.eye(2)
        for g in ([1.0, 2.0], [0.5, -1.0], [3.0, 1.0]):
            optimizer.apply([np.array(g)], vs)
            reference = 0.5 * (reference + np.outer(g, g))
        np.testing.assert_allclose(optimizer.state["B"].to_dense(), reference, rtol=1e-13)
        optimizer.apply([np.array([np.nan, 1.0])], vs)
        np.testing.assert_allclose(optimizer.state["B"].to_dense(), reference, rtol=1e-13)


def test_a_subclass_must_define_both_parts():
    class Half(GlobalVectorOptimizer):
        def update(self, x, g, state):
            return x, state

    with pytest.raises(TypeError, match="init_state"):
        Half()


# --- What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    ["weight_decay", "use_ema", "gradient_accumulation_steps", "clipnorm", "clipvalue", "loss_scale_factor"],
)
def test_keras_options_that_do_not_fit_are_refused_with_a_reason(option):
    with pytest.raises(ValueError, match=f"{option}=2 is not supported: .+"):
        SimpleGD(**{option: 2})
    SimpleGD(**{option: None})


def test_unknown_options_name_the_near_miss():
    with pytest.raises(ValueError, match="global_clipnorm"):
        SimpleGD(global_clip_norm=1.0)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "big"])
def test_bad_clipnorms_are_refused(value):
    with pytest.raises(ValueError, match="global_clipnorm"):
        SimpleGD(global_clipnorm=value)


@pytest.mark.parametrize("method", ["_resource_apply_dense", "_create_slots", "get_updates", "update_step"])
def test_methods_of_older_apis_are_told_their_replacement(method):
    cls = type("Old", (SimpleGD,), {method: lambda self, *a: None})
    with pytest.raises(ValueError, match=f"Old defines {method} .*(init_state|update)"):
        cls()


def test_nothing_to_train_is_an_error():
    for vs in ([], variables((0, 3))):
        with pytest.raises(ValueError, match="no trainable variables"):
            SimpleGD().build(vs)


def test_a_constraint_is_refused():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, kernel_constraint="non_neg")])
    with pytest.raises(ValueError, match="kernel has a constraint"):
        SimpleGD().build(model.trainable_variables)


def test_apply_without_variables_needs_a_built_optimizer():
    with pytest.raises(ValueError, match="variables"):
        SimpleGD().apply([np.ones(1)])


# --- Two doors, one result -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: SimpleGD(0.1), lambda: TestGD(rad=20.0), lambda: Probe(0.1)])
@pytest.mark.parametrize("net", [dense_net, stateful_net])
@pytest.mark.thorough_after(1)
def test_fit_and_loop_give_the_same_bits(make, net, float32):
    x, y = blobs()
    x = x.astype("float32")
    fitted, looped = net(), net()
    fitted.compile(make(), loss=crossentropy())
    fitted.fit(x, y, batch_size=40, epochs=3, shuffle=False, verbose=0)
    TrainLoop(looped, make(), crossentropy()).run(ArrayData(x, y, 40, shuffle=False), epochs=3)
    np.testing.assert_array_equal(weights(fitted), weights(looped))


# --- Saving --------------------------------------------------------------------------------------------


def test_config_round_trip():
    optimizer = SimpleGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), global_clipnorm=2.0, name="mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = SimpleGD.from_config(optimizer.get_config())
        assert again.get_config() == optimizer.get_config()
    assert "weight_decay" not in optimizer.get_config()
    assert "learning_rate" not in TestGD().get_config()


def trained(optimizer):
    x, y = blobs()
    model = dense_net()
    model.compile(optimizer, loss=crossentropy())
    model.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    return model, x, y


@pytest.mark.parametrize("storage", ["dense", "factored"])
@pytest.mark.thorough_after(1)
def test_keras_file_keeps_the_optimizer_state(tmp_path, storage):
    model, x, y = trained(TestGD(rad=20.0, storage=storage))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 6
    for m in (model, loaded):
        m.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(loaded), weights(model))


def test_keras_file_finds_a_method_of_ones_own(tmp_path):
    class Signs(GlobalVectorOptimizer):
        """Nothing but the two functions."""

        def init_state(self, x):
            return {"sum": tf.zeros_like(x)}

        def update(self, x, g, state):
            return x - self.learning_rate * tf.sign(g), {"sum": state["sum"] + g}

    model, x, y = trained(Signs(0.01))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is Signs
    for m in (model, loaded):
        m.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(loaded), weights(model))


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.thorough_after(1)
def test_weights_file_keeps_the_optimizer_state(tmp_path, built):
    model, x, y = trained(TestGD(rad=20.0, storage="factored"))
    model.save_weights(tmp_path / "run.weights.h5")
    other = dense_net(seed=5)
    other.compile(TestGD(rad=20.0, storage="factored"), loss=crossentropy())
    if built:
        other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "run.weights.h5")
    for m in (model, other):
        m.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(other), weights(model))
    assert int(other.optimizer.iterations) == 12


def test_loading_the_state_of_another_method_is_an_error():
    optimizer = SimpleGD()
    optimizer.build(variables((2,)))
    with pytest.raises(ValueError, match="another optimizer"):
        optimizer.load_own_variables({"iterations": np.array(3), "state.velocity": np.zeros(2)})


def test_loading_the_state_of_another_model_is_an_error():
    store = {}
    source, target = Probe(), Probe()
    source.build(variables((2,)))
    target.build(variables((3,)))
    source.save_own_variables(store)
    with pytest.raises(ValueError, match="shape"):
        target.load_own_variables(store)
