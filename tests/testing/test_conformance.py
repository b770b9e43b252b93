"""The list of promises: every method of the package keeps them, and whoever breaks one is told which."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop import ALGORITHMS, LBFGS, SAM, Adam, BestSoFar, GlobalObjectiveOptimizer, GlobalVectorOptimizer, Momentum
from trainloop.testing import ConformanceError, check_optimizer

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


class HeavyBall(GlobalVectorOptimizer):
    """A method of somebody else's, without fault. Each class below is one with a fault."""

    def __init__(self, learning_rate=0.01, momentum=0.9, name="heavy_ball", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = momentum

    def init_state(self, x):
        return {"velocity": tf.zeros_like(x)}

    def update(self, x, g, state):
        velocity = self.momentum * state["velocity"] - self.learning_rate * g
        return x + velocity, {"velocity": velocity}

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


class Descent(GlobalObjectiveOptimizer):
    """A method that may evaluate, without fault."""

    def __init__(self, name="descent", **kwargs):
        super().__init__(None, name=name, **kwargs)

    def init_state(self, x):
        return {}

    def update(self, x, f, g, state, objective):
        x_new = x - 0.01 * g
        return x_new, {}, objective.value_and_grad(x_new)


GOOD = {
    **ALGORITHMS,
    "sharpness-aware momentum": lambda: SAM(Momentum()),
    "best of adam": lambda: BestSoFar(Adam(0.01)),
    "best of lbfgs": lambda: BestSoFar(LBFGS()),
    "somebody else's with a schedule": lambda: HeavyBall(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
    "somebody else's that evaluates": Descent,
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD.keys())
@pytest.mark.thorough_after(1)
def test_a_method_keeps_all_promises(make):
    check_optimizer(make)


def test_promises_are_kept_in_the_precision_of_networks_too(float32):
    check_optimizer(lambda: HeavyBall(momentum=0.5, global_clipnorm=1.0))


# --- Configuration ----------------------------------------------------------------------------------------


class Forgetful(HeavyBall):
    def get_config(self):
        config = super().get_config()
        del config["momentum"]
        return config


class ForgetfulOfWhatItNeeds(HeavyBall):
    def __init__(self, momentum, name="needs", **kwargs):
        super().__init__(0.01, momentum, name=name, **kwargs)

    def get_config(self):
        return {"name": self.name}


class Unwritable(HeavyBall):
    def get_config(self):
        return {**super().get_config(), "momentum": np.float32(0.9)}


class UnwritableTensor(HeavyBall):
    def get_config(self):
        return {**super().get_config(), "momentum": tf.constant(0.9)}


class Drifting(HeavyBall):
    def __init__(self, learning_rate=0.01, momentum=0.9, **kwargs):
        super().__init__(learning_rate, momentum / 2, **kwargs)


# --- Purity -----------------------------------------------------------------------------------------------


class CountsInPython(HeavyBall):
    calls = 0

    def update(self, x, g, state):
        self.calls += 1
        return x - 0.01 / self.calls * g, state


class CountsInAVariable(HeavyBall):
    def init_state(self, x):
        self.calls = tf.Variable(tf.zeros([], x.dtype))
        return {}

    def update(self, x, g, state):
        return x - 0.01 / self.calls.assign_add(1) * g, {}


class KeepsADiary(HeavyBall):
    """What it writes has no effect, but a step that is not taken would be written too."""

    def init_state(self, x):
        self.lengths = tf.Variable(tf.zeros([], x.dtype))
        return {}

    def update(self, x, g, state):
        self.lengths.assign_add(tf.norm(g))
        return x - 0.01 * g, {}


class MovesTheVariables(HeavyBall):
    def update(self, x, g, state):
        self._vector.assign(x - 0.01 * g)
        return x - 0.01 * g, state


class CountsItsSteps(HeavyBall):
    def update(self, x, g, state):
        self.iterations.assign_add(1)
        return x - 0.01 * g, state


class Gambles(HeavyBall):
    def update(self, x, g, state):
        return x - 0.01 * g + 0.001 * tf.random.normal(x.shape, dtype=x.dtype), state


class GamblesInNumpy(HeavyBall):
    def update(self, x, g, state):
        return x - 0.01 * np.random.default_rng().random() * g, state


class GamblesLater(HeavyBall):
    """The first steps are pure."""

    def init_state(self, x):
        return {"steps": tf.constant(0)}

    def update(self, x, g, state):
        def noise():
            return 0.001 * tf.random.normal(x.shape, dtype=x.dtype)

        x_new = x - 0.01 * g + tf.cond(state["steps"] > 2, noise, lambda: tf.zeros_like(x))
        return x_new, {"steps": state["steps"] + 1}


# --- State ------------------------------------------------------------------------------------------------


def returning(make_state, make_x=lambda x, g: x - 0.01 * g):
    """A heavy ball that returns another state or point."""

    class Returning(HeavyBall):
        def update(self, x, g, state):
            return make_x(x, g), make_state(state["velocity"])

    return Returning


class SinglePrecisionState(HeavyBall):
    def init_state(self, x):
        return {"velocity": tf.zeros(x.shape, tf.float32)}


class SinglePrecisionConstant(HeavyBall):
    def update(self, x, g, state):
        return x - tf.constant(0.01) * g, state


class RemembersOutsideOfTheState(HeavyBall):
    """Called again at the same point it does the same: only a saved state that goes on shows the fault."""

    def init_state(self, x):
        self.least = tf.Variable(tf.constant(np.inf, x.dtype))
        return {}

    def update(self, x, g, state):
        least = self.least.assign(tf.minimum(self.least, tf.norm(g)))
        return x - 0.01 * least / (1 + least) * g, {}


# --- Compiled steps ---------------------------------------------------------------------------------------


class MakesAVariableWhenTraced(HeavyBall):
    made = None

    def update(self, x, g, state):
        if not tf.executing_eagerly() and self.made is None:
            self.made = tf.Variable(lambda: tf.zeros([], x.dtype))
        return x - 0.01 * g, state


class ReadsOncePerBlock(HeavyBall):
    """The count of steps is read outside of the loop."""

    def update(self, x, g, state):
        if tf.executing_eagerly():
            return x - 0.01 * g, state
        with tf.compat.v1.get_default_graph().outer_graph.as_default():
            steps = tf.cast(self.iterations.value, x.dtype)
        return x - 0.01 / (1 + steps) * g, state


class DecidesInPython(HeavyBall):
    def update(self, x, g, state):
        return (x - 0.01 * g if tf.norm(g) > 1 else x - 0.02 * g), state


class StandsStill(HeavyBall):
    def update(self, x, g, state):
        return x, state


class RunsAway(HeavyBall):
    def update(self, x, g, state):
        return x / 0, state


class GivesUp(HeavyBall):
    def init_state(self, x):
        return {"status": tf.constant(0)}

    def update(self, x, g, state):
        return x - 0.01 * g, {"status": tf.constant(-4)}


class ClaimsOldValuesForTheNewPoint(Descent):
    """A loop that believes it would go on with a wrong f and g."""

    def update(self, x, f, g, state, objective):
        return x - 0.01 * g, {}, (f, g)


# --- Doors ------------------------------------------------------------------------------------------------


class DoublesInFit(HeavyBall):
    def apply(self, grads, trainable_variables=None):
        super().apply([2 * g for g in grads], trainable_variables)


class OpenToFit(Descent):
    def apply(self, grads, trainable_variables=None):
        for g, variable in zip(grads, trainable_variables, strict=True):
            variable.assign_sub(0.01 * g)


class ClosedWithoutASign(Descent):
    def apply(self, grads, trainable_variables=None):
        raise ValueError("no")


ONE = HeavyBall()

BROKEN = {
    "config without an argument": (lambda: Forgetful(momentum=0.5), "config: .*momentum"),
    "config without a necessary argument": (lambda: ForgetfulOfWhatItNeeds(0.5), "config: .*momentum"),
    "config with a NumPy number": (Unwritable, "config: get_config must hold JSON values: .*float32"),
    "config with a tensor": (UnwritableTensor, "config: get_config must hold JSON values"),
    "config that changes": (Drifting, r"config: from_config\(get_config\(\)\) changes momentum"),
    "counter in Python": (CountsInPython, "purity: CountsInPython in float32: .* another result"),
    "counter in a variable": (CountsInAVariable, "purity: .* another result"),
    "writes into its own variable": (KeepsADiary, "purity: .*wr(ote|ites)"),
    "writes into the model": (MovesTheVariables, "purity: update wrote to variables: MovesTheVariables.* x is"),
    "writes into the step counter": (CountsItsSteps, "purity: update wrote to variables: .* iterations is"),
    "randomness": (Gambles, "purity: .* another result"),
    "randomness of NumPy": (GamblesInNumpy, "purity: .* another result"),
    "randomness later": (GamblesLater, "(purity|blocks|restore): .*GamblesLater"),
    "state of another dtype": (
        returning(lambda v: {"velocity": tf.cast(v, tf.float16)}),
        "Returning.update: state 'velocity' must keep .*float32, received .*float16",
    ),
    "state of another shape": (
        returning(lambda v: {"velocity": v[:2]}),
        r"Returning.update: state 'velocity' must keep shape \(5,\) .*received shape \(2,\)",
    ),
    "state with a new key": (
        returning(lambda v: {"velocity": v, "new": v}),
        r"must return the keys that init_state made: expected \['velocity'\], received \['new', 'velocity'\]",
    ),
    "state without a key": (returning(lambda v: {}), r"must return the keys .*expected \['velocity'\], received \[\]"),
    "state that is no dict": (returning(lambda v: [v]), "must be a .*dict, received list"),
    "point of another shape": (
        returning(lambda v: {"velocity": v}, lambda x, g: x[:, None]),
        r"Returning.update: x_new must keep shape \(5,\)",
    ),
    "point of another dtype": (
        returning(lambda v: {"velocity": v}, lambda x, g: tf.cast(x, tf.float16)),
        "Returning.update: x_new must keep .*float32, received .*float16",
    ),
    "state in one precision": (SinglePrecisionState, "SinglePrecisionState in float64"),
    "constant in one precision": (SinglePrecisionConstant, "SinglePrecisionConstant in float64"),
    "memory outside of the state": (
        RemembersOutsideOfTheState,
        "(purity|restore|blocks): .*RemembersOutsideOfTheState",
    ),
    "variable made while tracing": (MakesAVariableWhenTraced, "one trace: .*traced 2 times"),
    "value read once per block": (ReadsOncePerBlock, r"blocks: \(3, 3\) steps differ from single ones"),
    "decision in Python": (
        DecidesInPython,
        r"DecidesInPython.update at .*:\d+ in update asks in Python",
    ),
    "no movement": (StandsStill, "finite: StandsStill in float32"),
    "movement without bounds": (RunsAway, "RunsAway in float32: a step failed"),
    "failure without a reason": (GivesUp, "GivesUp in float32: a step failed"),
    "values of another point": (ClaimsOldValuesForTheNewPoint, "ClaimsOldValuesForTheNewPoint in float32"),
    "fit differs": (DoublesInFit, "fit: DoublesInFit ends elsewhere than in TrainLoop"),
    "fit without an objective": (OpenToFit, "fit: OpenToFit must raise in fit, naming TrainLoop"),
    "fit refused without a reason": (ClosedWithoutASign, "fit: ClosedWithoutASign must raise"),
    "the same instance twice": (lambda: ONE, "make must return a new optimizer at each call"),
    "a class": (lambda: HeavyBall, "make must return a new optimizer"),
    "an optimizer of Keras": (lambda: keras.optimizers.SGD(), "make must return .*received.*SGD"),
}


@pytest.mark.parametrize(("make", "message"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.thorough_after(1)
def test_a_broken_promise_is_named(make, message):
    with pytest.raises((ConformanceError, ValueError), match=message):
        check_optimizer(make)


def test_a_broken_promise_fails_a_test_as_an_assertion_does():
    with pytest.raises(AssertionError):
        check_optimizer(Drifting)
