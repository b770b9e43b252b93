"""What every optimizer on the flat parameter vector must do, whoever wrote it.

    check_optimizer(lambda: MyMethod(rad=2.0))

goes through the list below in float32 and float64 on a small least-squares problem of five unknowns in two variables,
and raises `ConformanceError` with the name of the first promise that is broken.

    config        get_config holds JSON values, and makes the same optimizer again
    purity        update called twice gives the same bits and writes nothing
    values        f and g that update returns belong to the x that it returns
    one trace     many steps, one trace
    blocks        6 x 1, 2 x 3 and 1 x 6 steps end in the same bits
    restore       a saved state goes on as the original does
    finite        no step is lost: six steps leave a finite point that is not the first one
    fit           a GlobalVectorOptimizer trains in model.fit as in TrainLoop; others raise and name TrainLoop
"""

import copy
import inspect
import json
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from trainloop.errors import users_line
from trainloop.loop.train_loop import TrainLoop
from trainloop.objectives.function import LeastSquares
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.status import Status
from trainloop.vectors.layout import VariableVector


class ConformanceError(AssertionError):
    """An optimizer breaks one of the promises; the message says which and how.

    Examples:
        >>> testing.check_optimizer(keras.optimizers.SGD)
        Traceback (most recent call last):
            ...
        ConformanceError: make must return a new optimizer at each call, ...
    """


def check_optimizer(make: Callable[[], WholeVectorOptimizer]) -> None:
    """Check all that an optimizer must do.

    Structure and dtypes are kept, `update` is pure and traced once, bits do not depend on how steps are cut into
    blocks, saving and restoring go back to the same point, `fit` takes the steps of `TrainLoop` or raises.

    Args:
        make: function without arguments that returns a new, unused optimizer.

    Raises:
        ConformanceError: names the promise.
        ValueError: from the base class, which checks shapes and dtypes of what `update` returns while tracing.

    Examples:
        >>> testing.check_optimizer(lambda: SimpleGD(0.01))
    """
    _check_config(make)
    for dtype in ("float32", "float64"):
        try:
            bench = _Bench(make(), dtype)
            _check_purity(bench)
            _check_steps(bench)
        except (TypeError, tf.errors.InvalidArgumentError) as error:
            # What TensorFlow raises for mixed dtypes, and for decisions in Python on what is a tensor.
            said = " ".join(str(error).split())
            raise ConformanceError(f"{type(make()).__name__} in {dtype}{users_line(error)}: {said}") from error
    _check_fit(make)


class _Bench:
    """An optimizer on f(x) = |r(x)|^2 with r_i = a_i'x - b_i + 0.1 (c_i'x)^2, six residuals in five unknowns."""

    def __init__(self, optimizer, dtype):
        rng = np.random.default_rng(0)
        A, C = (tf.constant(rng.normal(size=(6, 5)), dtype) for _ in range(2))
        b = tf.constant(rng.normal(size=6), dtype)
        self.objective = LeastSquares(lambda x: tf.linalg.matvec(A, x) - b + 0.1 * tf.square(tf.linalg.matvec(C, x)))
        start = rng.normal(size=5)
        self.variables = [keras.Variable(start[:3], dtype=dtype), keras.Variable(start[3:], dtype=dtype)]
        self.vector = VariableVector(self.variables)
        self.optimizer, self.where = optimizer, f"{type(optimizer).__name__} in {dtype}"
        optimizer.build(self.variables)
        self.traces = 0
        self.steps = tf.function(self._steps, autograph=False)

    def _steps(self, k):
        self.traces += 1

        def step(i):
            status = self.optimizer.step(self.objective, self.objective.value_and_grad(self.vector.read())).status
            return tf.where(status < 0, k + 1, i + 1)

        return tf.while_loop(lambda i: i < k, step, [tf.constant(0)])[0]

    def run(self, *blocks):
        """The state after blocks of these lengths."""
        for k in blocks:
            before = float(self.objective.value(self.vector.read()))
            if int(self.steps(tf.constant(k))) != k:
                now = float(self.objective.value(self.vector.read()))
                rose = np.isfinite(before) and not now <= 10 * before
                advice = f"; f rose from {before:.3g} to {now:.3g}: does it go uphill, or too far?" if rose else ""
                why = Status(int(self.optimizer._last_failure)).message
                raise ConformanceError(f"{self.where}: a step failed on a sum of six squares, because {why}{advice}")
        return self.state()

    def state(self):
        saved = {}
        self.optimizer.save_own_variables(saved)
        return {"x": self.vector.read().numpy(), **{name: np.array(value) for name, value in saved.items()}}

    def load_state(self, state):
        state = dict(state)
        self.vector.assign(state.pop("x"))
        self.optimizer.load_own_variables(state)


def _check_config(make):
    optimizer = make()
    if not isinstance(optimizer, WholeVectorOptimizer):
        raise ConformanceError(
            "make must return a new optimizer at each call, a GlobalVectorOptimizer or GlobalObjectiveOptimizer; "
            f"received {optimizer!r}"
        )
    if optimizer is make():
        raise ConformanceError("make must return a new optimizer at each call, received the same one twice")
    config = optimizer.get_config()
    arguments = inspect.signature(type(optimizer)).parameters.values()
    told = {*config, *optimizer.left_out_of_config}
    missing = [p.name for p in arguments if p.kind is not p.VAR_KEYWORD and p.name not in told]
    if missing:
        raise ConformanceError(f"config: get_config lacks the constructor's {', '.join(missing)}")
    try:
        json.dumps(config)
    except TypeError as error:
        raise ConformanceError(f"config: get_config must hold JSON values: {error}") from error
    again = type(optimizer).from_config(copy.deepcopy(config)).get_config()  # Keras writes into what it reads
    if again != config:
        differing = [key for key in config if again.get(key) != config[key]]
        raise ConformanceError(f"config: from_config(get_config()) changes {', '.join(differing)}")


def _check_purity(bench):
    x, before = bench.vector.read(), bench.state()
    f, g = bench.objective.value_and_grad(x)
    own = _variables_of(bench.optimizer)
    first, second = (bench.optimizer.updated(x, f, g, bench.optimizer.state, bench.objective) for _ in range(2))
    if first[2] is not None:
        _compare_values(bench, first[0], first[2])
    tensors = [(first[0], second[0]), *((first[1][path], second[1][path]) for path in first[1])]
    for one, other in tensors:
        if isinstance(one, tf.Tensor) and not np.array_equal(one, other, equal_nan=True):
            raise ConformanceError(f"purity: {bench.where}: update gives another result when it is called again")
    _compare("purity: update wrote to variables", bench, before, bench.state())
    for name, value in _variables_of(bench.optimizer).items():
        if not np.array_equal(value, own.get(name), equal_nan=True):
            raise ConformanceError(f"purity: {bench.where}: update writes to its variable {name}; keep it in the state")


def _variables_of(optimizer):
    """Values of the variables that a subclass has among its attributes, by name."""
    kinds = (tf.Variable, keras.Variable)
    return {
        name: tf.convert_to_tensor(value).numpy() for name, value in vars(optimizer).items() if isinstance(value, kinds)
    }


def _compare_values(bench, x_new, claimed):
    """f and g that update returns must be those of the point that it returns."""
    for name, known, given in zip("fg", bench.objective.value_and_grad(x_new), claimed, strict=True):
        scale = 1e-4 * max(1.0, float(tf.reduce_max(tf.abs(known))))
        if not np.allclose(known, given, rtol=0, atol=scale):
            raise ConformanceError(f"values: {bench.where}: {name} is {known} at x_new, update returned {given}")


def _check_steps(bench):
    start = bench.state()
    half = bench.run(1, 1, 1)
    single = bench.run(1, 1, 1)
    if not np.all(np.isfinite(single["x"])) or np.array_equal(single["x"], start["x"]):
        raise ConformanceError(f"finite: {bench.where}: x is {single['x']} after six steps from {start['x']}")
    for blocks in ((3, 3), (6,)):
        bench.load_state(start)
        _compare(f"blocks: {blocks} steps differ from single ones", bench, single, bench.run(*blocks))
    bench.load_state(half)
    _compare("restore: a restored state continues in another way", bench, single, bench.run(3))
    if bench.traces != 1:
        raise ConformanceError(f"one trace: {bench.where}: traced {bench.traces} times")


def _check_fit(make):
    optimizer = make()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        models.append(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]))
    models[0].compile(optimizer, loss="mse")
    if not isinstance(optimizer, GlobalVectorOptimizer):
        try:
            models[0].fit(x, y, verbose=0)
        except ValueError as error:
            if "TrainLoop" in str(error):
                return
        raise ConformanceError(f"fit: {type(optimizer).__name__} must raise in fit, naming TrainLoop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models[0].fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    TrainLoop(models[1], make(), "mse").run((x, y), epochs=2)
    for fitted, looped in zip(*(model.get_weights() for model in models), strict=True):
        if not np.array_equal(fitted, looped):
            raise ConformanceError(f"fit: {type(optimizer).__name__} ends elsewhere than in TrainLoop")


def _compare(promise, bench, expected, received):
    for name in expected:
        if not np.array_equal(expected[name], received[name], equal_nan=True):
            raise ConformanceError(f"{promise}: {bench.where}: {name} is {received[name]}, expected {expected[name]}")
