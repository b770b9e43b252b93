"""The contract of a method on the whole vector, and the only place where weights and state are written.

    method                      init_state(x)         update(x, g, state)
    gradient descent            {}                    x - t g
    heavy ball                  {"velocity": 0}       v <- m v + g;  x - t v
    ellipsoid method            {"B": I, "radius"}    x - r/(n+1) B g / sqrt(g'B g);  B, r contracted

One class, two doors. `model.fit` comes in through Keras's public `apply`, the compiled loop through `step`.
Both end in the same `update` and the same `_commit`, so for the same batches they give the same weights, bit
for bit. A step, in order:

    pack g  ->  finite check  ->  clip  ->  update  ->  finite check  ->  commit, or nothing at all

`update` is pure: tensors in, tensors out. That makes a method testable against NumPy with plain tensors, and
a rejected step is one that is not committed.
"""

import abc
import functools
import typing
import warnings

import keras
import numpy as np
import tensorflow as tf

from trainloop import checks, linalg, refusals
from trainloop import state as states
from trainloop.layout import VariableVector
from trainloop.objective import pack_gradients
from trainloop.shared_matrix import SharedMatrix
from trainloop.status import Status, first_failure


class StepResult(typing.NamedTuple):
    """What one step tells.

    `status` is an int32 code [] of `Status`; `logs` has the loss, the gradient norm and every scalar of the state.

    """

    status: tf.Tensor
    logs: dict


class GlobalVectorOptimizer(keras.optimizers.Optimizer, abc.ABC):
    """A method that needs the whole x and the whole g. Works in `model.compile` and in `TrainLoop`.

    A subclass defines `init_state` and `update`. What its author must know, in full:

    1. Both are pure and traced once: tensors in, tensors out. Values decide through `tf.where`, `tf.cond`,
        `tf.while_loop`.
    2. `update` returns the keys, shapes and dtypes that `init_state` made. The base checks this while
        tracing.
    3. Every scalar of the state is logged at every step under its key.
    4. Hyper-parameters are constructor arguments, validated there, and returned by `get_config`.
    5. Randomness comes from a seed in the state, through `tf.random.stateless_*`.
    6. A method that can end keeps an int32 scalar `"status"` in its state; codes are in `trainloop.Status`.

    Args:
        learning_rate: positive number, a Keras schedule or a function without arguments; None for methods
            that have none. Inside `update`, `self.learning_rate` is a scalar tensor of the dtype of x.
        global_clipnorm: positive number or None. g is shortened to this norm before `update` sees it, and
            after all replicas are summed.
        name: for variables and messages.
        **kwargs: other options of Keras optimizers are refused with the reason and the replacement.

    Raises:
        ValueError: an option out of range or refused, or a subclass written for an older optimizer API.

    Example:
        >>> class HeavyBall(GlobalVectorOptimizer):
        ...     def __init__(self, learning_rate=0.05, momentum=0.9, name="heavy_ball", **kwargs):
        ...         super().__init__(learning_rate, name=name, **kwargs)
        ...         self.momentum = momentum
        ...     def init_state(self, x):
        ...         return {"velocity": tf.zeros_like(x)}
        ...     def update(self, x, g, state):
        ...         velocity = self.momentum * state["velocity"] + g
        ...         return x - self.learning_rate * velocity, {"velocity": velocity}
        ...     def get_config(self):
        ...         return {**super().get_config(), "momentum": self.momentum}
    """

    _inside_update = False

    def __init__(self, learning_rate=None, *, global_clipnorm=None, name=None, **kwargs):
        refusals.old_api(type(self))
        refusals.options(kwargs)
        if global_clipnorm is not None:
            global_clipnorm = checks.real("global_clipnorm", global_clipnorm, above=0)
        super().__init__(_keras_rate(learning_rate), global_clipnorm=global_clipnorm, name=name)
        self._has_rate = learning_rate is not None
        self._vector = None
        self._memory = _Memory()
        self._restore_when_built = None

    @abc.abstractmethod
    def init_state(self, x):
        """What the method remembers before its first step.

        Args:
            x: [n], the point it starts from.

        Returns:
            (Nested) dict of tensors of any shape and dtype, and of `SharedMatrix`es. May be empty.
        """

    @abc.abstractmethod
    def update(self, x, g, state):
        """One step.

        Args:
            x: [n], the point.
            g: [n], the gradient there.
            state: what `init_state` made or the last step returned.

        Returns:
            (x_new [n], state_new).
        """

    @property
    def layout(self):
        """The `FlatLayout` of x, known once the optimizer is built; None before."""
        return self._vector and self._vector.layout

    @property
    def state(self):
        """The state as it is now: a nested dict of tensors and shared matrices."""
        return states.unflatten(self._read_state())

    @property
    def learning_rate(self):
        """Inside `update` a scalar tensor of the dtype of x, outside what Keras gives."""
        rate = super().learning_rate
        if not self._inside_update:
            return rate
        dtype = self._vector.layout.dtype
        if isinstance(rate, float):  # tf.cast would take it through float32
            return tf.constant(rate, dtype)
        return tf.cast(rate.value if isinstance(rate, keras.Variable) else rate, dtype)

    @learning_rate.setter
    def learning_rate(self, value):
        if not self._has_rate:
            raise ValueError(f"{type(self).__name__} has no learning rate to set")
        if isinstance(value, (int, float)):
            value = checks.real("learning_rate", value, above=0)
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    @property
    def skipped_steps(self):
        """How many steps of this optimizer's life failed and were not taken."""
        return int(self._skipped_steps) if self.built else 0

    @property
    def grows(self):
        """True when a part of the state has no fixed shape, as the history of a factored `SharedMatrix`."""
        return any(None in variable.shape for variable in self._memory.variables.values())

    def log_dtypes(self):
        """Names of what `step` logs, with NumPy dtypes: "loss", "grad_norm", and the scalars of the state."""
        own = dict.fromkeys(("loss", "grad_norm"), self._vector.layout.dtype)
        own |= {path: leaf.dtype.name for path, leaf in states.scalars(self._read_state()).items()}
        return {name: tf.as_dtype(dtype).as_numpy_dtype for name, dtype in own.items()}

    def build(self, variables):
        """Fix the layout of x and create the state.

        Keras and the loop call this; calling it again with the same variables does nothing.

        Args:
            variables: the model's trainable variables.

        Raises:
            ValueError: no variables, a variable with a constraint, more than one replica, or other variables
                than at the first call.
        """
        variables = list(variables)
        if self.built:
            self._vector.arrange(variables, variables)
            return
        refusals.variables(variables)
        with tf.init_scope():
            self._vector = VariableVector(variables)
            x = self._vector.read()
            leaves = states.as_tensors(states.flatten(self.init_state(x)), like=x)
            for path, leaf in leaves.items():
                self._memory.leaves[path] = self._make_leaf(path, leaf)
            self._skipped_steps = self.add_variable((), "zeros", "int64", name="skipped_steps")
            self._last_failure = self.add_variable((), "zeros", "int32", name="last_failure")
            super().build(variables)
            if self._restore_when_built is not None:
                self._restore_when_built()

    def apply(self, grads, trainable_variables=None):
        """The door of `model.fit` and of `apply_gradients`.

        Args:
            grads: one gradient per variable: a tensor, an `IndexedSlices`, or None for zeros.
            trainable_variables: the variables they belong to, in any order; may be left out once the
                optimizer is built.

        Raises:
            ValueError: not exactly the variables the optimizer was built with, or every gradient is None.
        """
        grads = list(grads)
        if trainable_variables is None and not self.built:
            raise ValueError("the first call needs the variables too: apply(grads, trainable_variables)")
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
            grads = self._vector.arrange(grads, trainable_variables)
        g = pack_gradients(self._vector.layout, grads)
        self._advance(tf.zeros([], g.dtype), g)

    def step(self, objective):
        """The door of the compiled loop: one step on the objective's batch.

        Args:
            objective: has `first_pass() -> (f [], g [n])` at the point the variables hold.

        Returns:
            `StepResult`. With a negative status nothing was written.
        """
        f, g = objective.first_pass()
        return self._advance(f, g)

    # Without this, autograph would rewrite `update` in some callers' functions and not in others'.
    @tf.autograph.experimental.do_not_convert
    def _advance(self, f, g):
        """From f and g to the next committed point. Both doors end here."""
        x, old = self._vector.read(), self._read_state()
        grad_norm = linalg.norm(g)
        g = linalg.clip_norm(g, grad_norm, self.global_clipnorm)
        x_new, new = self._checked_update(x, g, old)
        status = first_failure(
            (~tf.math.is_finite(f), Status.NONFINITE_LOSS),
            (~tf.math.is_finite(grad_norm), Status.NONFINITE_GRADIENT),
            (~tf.reduce_all(tf.math.is_finite(x_new)), Status.NONFINITE_STEP),
        )
        if "status" in new:
            status = tf.where(status == Status.RUNNING, tf.cast(new["status"], tf.int32), status)
        self._commit(status, (x, x_new), old, new)
        logs = {"loss": f, "grad_norm": grad_norm, **states.scalars(new)}
        return StepResult(status, logs)

    def _checked_update(self, x, g, old):
        self._inside_update = True
        try:
            returned = self.update(x, g, states.unflatten(old))
        finally:
            self._inside_update = False
        method = type(self).__name__
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ValueError(f"{method}.update must return (x_new, state), received {type(returned).__name__}")
        x_new, state = returned
        return states.check_tensor(f"{method}.update: x_new", x, x_new), states.check_update(method, old, state)

    def _commit(self, status, points, old, new):
        """Write the new point and state, or the old ones again after a failure.

        Selecting between the two is cheaper than a branch for everything but a matrix, where it would cost memory.
        """
        taken = status >= 0
        x, x_new = points
        self._vector.assign(tf.where(taken, x_new, x))
        matrices = [leaf for leaf in new.values() if isinstance(leaf, SharedMatrix)]
        for path, leaf in new.items():
            if not isinstance(leaf, SharedMatrix):
                self._memory.leaves[path].assign(tf.where(taken, leaf, old[path]))
        if matrices:
            tf.cond(taken, lambda: _commit_all(matrices), lambda: tf.no_op())
        self.iterations.assign_add(tf.cast(taken, self.iterations.dtype))
        self._skipped_steps.assign_add(tf.cast(~taken, "int64"))
        self._last_failure.assign(tf.where(taken, self._last_failure, status))

    def finalize_variable_values(self, var_list):
        """Called by `model.fit` when it ends: the moment to say that steps were not taken, which `fit` does not see."""
        super().finalize_variable_values(var_list)
        skipped = self.skipped_steps
        if skipped:
            reason = Status(int(self._last_failure)).sentence
            warnings.warn(f"{skipped} steps were not taken; the last one because {reason}", stacklevel=2)

    def _read_state(self):
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} is not built and has no state; call build(model.trainable_variables)"
            )
        leaves = self._memory.leaves.items()
        return {path: leaf if isinstance(leaf, SharedMatrix) else tf.convert_to_tensor(leaf) for path, leaf in leaves}

    def _make_leaf(self, path, leaf):
        if isinstance(leaf, SharedMatrix):
            return leaf.as_variables(lambda name, value, grows: self._make_variable(f"{path}/{name}", value, grows))
        return self._make_variable(path, leaf, grows=False)

    def _make_variable(self, path, value, grows):
        name = path.replace("/", "_")
        if grows:  # Keras variables have a fixed shape
            variable = tf.Variable(value, shape=[None, *value.shape[1:]], trainable=False, name=name)
        else:
            variable = self.add_variable(
                value.shape, lambda shape, dtype: value, dtype=value.dtype.name, name=name
            ).value
        self._memory.variables[f"state/{path}"] = variable
        return variable

    def _saved_variables(self):
        """Everything a saved optimizer consists of, by name."""
        rate = super().learning_rate
        own = {"iterations": self.iterations} | ({"learning_rate": rate} if isinstance(rate, keras.Variable) else {})
        return {name.replace("/", "."): variable for name, variable in (own | self._memory.variables).items()}

    def save_own_variables(self, store):
        """Write every variable into a Keras store under its own name."""
        for name, variable in self._saved_variables().items():
            store[name] = np.asarray(variable)

    def load_own_variables(self, store):
        """Read what `save_own_variables` wrote. Before it is built, an optimizer keeps the values until it is.

        Raises:
            ValueError: the store belongs to another method or another model.
        """
        saved = {name: np.asarray(store[name]) for name in store.keys()}  # noqa: SIM118 (a Keras store only has keys())
        if self.built:
            self._restore(saved)
        else:
            self._restore_when_built = functools.partial(self._restore, saved)

    def _restore(self, saved):
        variables = self._saved_variables()
        if saved.keys() != variables.keys():
            raise ValueError(
                f"the saved state is another optimizer's: {type(self).__name__} has {sorted(variables)}, "
                f"the file has {sorted(saved)}"
            )
        for name, variable in variables.items():
            if not tf.TensorShape(variable.shape).is_compatible_with(saved[name].shape):
                raise ValueError(f"saved {name} has shape {saved[name].shape}, this optimizer needs {variable.shape}")
        for name, variable in variables.items():
            variable.assign(saved[name])

    def get_config(self):
        """The constructor arguments, as JSON-able values. Subclasses add their own."""
        config = {"name": self.name, "global_clipnorm": self.global_clipnorm}
        return config | ({"learning_rate": super().get_config()["learning_rate"]} if self._has_rate else {})


def _commit_all(matrices):
    for matrix in matrices:
        matrix.commit()
    return tf.no_op()


class _Memory:
    """State of a built optimizer, in a class so that neither Keras nor TensorFlow adopts the containers."""

    def __init__(self):
        self.leaves = {}  # path -> variable or SharedMatrix of variables
        self.variables = {}  # name in a saved file -> variable


def _keras_rate(learning_rate):
    """What Keras's constructor takes. It insists on a rate; a function is one that makes no variable."""
    if learning_rate is None:
        return lambda: 1.0
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule) or callable(learning_rate):
        return learning_rate
    if isinstance(learning_rate, str):
        raise ValueError(f"learning_rate must be a positive number, received {learning_rate!r}; use name=... for names")
    return checks.real("learning_rate", learning_rate, above=0)
