"""What every optimizer on the flat parameter vector has: a layout, a state, and one place where both are written.

A step, in order:

    first pass  ->  finite check  ->  clip  ->  update  ->  finite check  ->  commit, or nothing at all

`update` is pure: tensors in, tensors out. That makes an optimizer testable against NumPy with plain tensors, and
a rejected step is one that is not committed. What `update` looks like is the contract of a subclass, see
`optimizer`.
"""

import abc
import logging
import typing
import warnings
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.errors import users_line
from trainloop.matrices.stored_value import StoredValue
from trainloop.objectives.base import Objective
from trainloop.optimizer import memory_plan, validation
from trainloop.optimizer import state as states
from trainloop.optimizer.configuration import Configured
from trainloop.optimizer.proposed_step import ProposedStep
from trainloop.optimizer.saving import SavedVariables
from trainloop.optimizer.state import Memory
from trainloop.status import Status, first_failure
from trainloop.types import Evaluated, LearningRate, State, Variable
from trainloop.vectors import linalg
from trainloop.vectors.layout import FlatLayout, VariableVector

_LOG = logging.getLogger("trainloop")


class StepResult(typing.NamedTuple):
    """What one step tells.

    `status` is an int32 code [] of `Status`; `logs` has the loss, the gradient norm, every scalar of the state and what
    was watched. `evaluated` is (f, g) at the point where the step ended, if the optimizer knows them, else None.

    Examples:
        >>> bowl = FunctionObjective(lambda x: tf.reduce_sum(x**2))
        >>> optimizer, x = SimpleGD(0.1), tf.Variable([3.0, 4.0])
        >>> optimizer.build([x])
        >>> result = optimizer.step(bowl, bowl.value_and_grad(x))
        >>> int(result.status), float(result.logs["loss"])
        (0, 25.0)
    """

    status: tf.Tensor
    logs: dict[str, tf.Tensor]
    evaluated: Evaluated | None = None


class WholeVectorOptimizer(SavedVariables, Configured, abc.ABC):
    """The machinery of both kinds of optimizers; derive from `GlobalVectorOptimizer` or `GlobalObjectiveOptimizer`.

    It owns the variables and the state, and is the only writer of both. Constructor arguments are those of
    `GlobalVectorOptimizer`.
    """

    # False for optimizers that never look at g: `minimize` then asks for values alone.
    uses_gradient = True

    # True for optimizers that ask for the gradients of the terms of f at x: the loop then takes f and g from these.
    uses_term_gradients = False

    # True for optimizers whose status says when they are done, in terms that do not depend on the unit of f: `minimize`
    # has no test of the gradient then, unless it is asked for one.
    ends_by_itself = False

    # True for optimizers that learn curvature from differences of gradients, or solve equations with J'J: `TrainLoop`
    # says what float32 costs them.
    needs_digits = False

    _rate_inside = None  # while `update` runs, the learning rate as it sees it

    def __init_subclass__(cls, **kwargs: typing.Any) -> None:
        """Make the class known to Keras, so that a saved model finds its optimizer again, as "Custom>HeavyBall"."""
        super().__init_subclass__(**kwargs)
        package = "trainloop" if cls.__module__.startswith("trainloop.") else "Custom"
        keras.saving.register_keras_serializable(package)(cls)

    def __init__(
        self,
        learning_rate: LearningRate | None = None,
        *,
        global_clipnorm: float | None = None,
        name: str | None = None,
        **kwargs: typing.Any,
    ) -> None:
        validation.old_api(type(self))
        validation.options(kwargs)
        if global_clipnorm is not None:
            global_clipnorm = checks.real("global_clipnorm", global_clipnorm, above=0)
        super().__init__(_keras_rate(learning_rate), global_clipnorm=global_clipnorm, name=name)
        self._given_rate, self._has_rate = learning_rate, learning_rate is not None
        is_schedule = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        self._schedule: keras.optimizers.schedules.LearningRateSchedule | None = learning_rate if is_schedule else None
        # The optimizer this one works inside of; a tuple, so that Keras does not take it for a part.
        self._outer: tuple[WholeVectorOptimizer, ...] = ()
        self._known_vector: VariableVector | None = None
        self._memory = Memory()
        self._load_when_built = None

    @abc.abstractmethod
    def init_state(self, x: tf.Tensor) -> State:
        """What the optimizer remembers before its first step.

        Args:
            x: [n], the point it starts from.

        Returns:
            (Nested) dict of tensors of any shape and dtype, and of `SharedMatrix`es. May be empty.
        """

    @property
    def layout(self) -> FlatLayout | None:
        """The `FlatLayout` of x, known once the optimizer is built; None before."""
        return None if self._known_vector is None else self._known_vector.layout

    @property
    def _vector(self) -> VariableVector:
        """The variables as x."""
        if self._known_vector is None:
            raise self._not_built()
        return self._known_vector

    @property
    def state(self) -> State:
        """The state as it is now: a nested dict of tensors and shared matrices."""
        return states.unflatten(self._read_state())

    @property
    def learning_rate(self) -> typing.Any:
        """Inside `update` a scalar tensor of the dtype of x, outside what Keras gives."""
        if self._rate_inside is not None:
            return self._rate_inside
        if self._outer and self._schedule is not None:
            return self._schedule(self._outermost().iterations)
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, value: typing.Any) -> None:
        validation.learning_rate_to_set(self, value, self._has_rate, super().learning_rate)
        if isinstance(value, (int, float)):
            value = checks.real("learning_rate", value, above=0)
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def exclude_from_weight_decay(self, var_list: typing.Any = None, var_names: typing.Any = None) -> None:
        """Keras's way to leave variables out of its weight decay, which optimizers of this package do not have.

        Args:
            var_list, var_names: ignored.

        Raises:
            ValueError: always; it names the replacement.
        """
        validation.weight_decay_exclusions(self)

    def best_point(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """(x [n], f []) of the best point seen, for optimizers that keep it (`BestSoFar`); else None."""
        return None

    def restore_best(self) -> None:
        """Put the best point seen into the variables.

        Raises:
            ValueError: the optimizer keeps none.
        """
        best = self.best_point()
        if best is None:
            raise ValueError(
                f"{type(self).__name__} keeps no best point; wrap it: BestSoFar({type(self).__name__}(...))"
            )
        self._vector.assign(best[0])

    @property
    def skipped_steps(self) -> int:
        """How many steps of this optimizer's life failed and were not taken."""
        return int(tf.convert_to_tensor(self._skipped_steps)) if self.built else 0

    @property
    def grows(self) -> bool:
        """True when a part of the state has no fixed shape, as the history of a factored `SharedMatrix`."""
        return self._memory.grows

    def memory_plan(self, n: int, dtype: tf.DType | str = "float32") -> memory_plan.MemoryPlan:
        """What the state takes for n parameters, without taking it.

        Args:
            n: number of parameters.
            dtype: of x.

        Returns:
            `MemoryPlan`; `print` shows it as a table.
        """
        n, dtype = checks.integer("n", n, at_least=1), tf.as_dtype(dtype)
        method, found = self.fresh() if self.built else self, {}

        def first_state(x):
            found.update(states.as_tensors(states.flatten(method.init_state(x)), like=x))

        # Tracing makes symbols, not numbers.
        tf.function(first_state, autograph=False).get_concrete_function(tf.TensorSpec([n], dtype))
        return memory_plan.plan(found, n, dtype)

    def log_dtypes(self) -> dict[str, typing.Any]:
        """Names of what `step` logs, with NumPy dtypes: "loss", "grad_norm", rates, and the scalars of the state."""
        own = dict.fromkeys(("loss", "grad_norm", *self._rate_names()), self._vector.layout.dtype)
        own |= {path: leaf.dtype.name for path, leaf in states.scalars(self._read_state()).items()}
        return {name: tf.as_dtype(dtype).as_numpy_dtype for name, dtype in own.items()}

    def build(self, variables: Iterable[Variable]) -> None:
        """Fix the layout of x and create the state.

        Keras and the loop call this; calling it again with the same variables does nothing.

        Args:
            variables: the model's trainable variables.

        Raises:
            ValueError: no variables, a variable with a constraint, a replica of several asks, or other variables
                than at the first call.
        """
        variables = list(variables)
        if self.built:
            self._vector.arrange(variables, variables)
            self._catch_up()
            return
        validation.variables(variables)
        have_values = states.have_values(variables)
        with tf.init_scope():
            self._known_vector = VariableVector(variables)
            layout = self._vector.layout
            x = self._vector.read() if have_values else tf.zeros([layout.size], layout.dtype)
            leaves = self._first_leaves(x)
            needed = memory_plan.plan(leaves, x.shape[0], x.dtype)
            needed.check_fits(type(self).__name__, has_storage=hasattr(self, "storage"))
            _LOG.info("%s: %s", type(self).__name__, needed)
            self._memory.create(leaves, self.add_variable, of_x=have_values)
            self._skipped_steps = self.add_variable((), "zeros", "int64", name="skipped_steps")
            self._last_failure = self.add_variable((), "zeros", "int32", name="last_failure")
            super().build(variables)
            if self._load_when_built is not None:
                self._load_when_built()

    def step(
        self,
        objective: Objective,
        evaluated: Evaluated | None = None,
        watch: Callable[[ProposedStep], dict[str, tf.Tensor]] | None = None,
    ) -> StepResult:
        """The entry point of the compiled loops: one step on an objective.

        Args:
            objective: an `Objective`.
            evaluated: (f [], g [n]) at the point the variables hold; None asks `objective.first_pass()`.
            watch: function of the `ProposedStep`, called before anything is written: dict of tensors [] for the logs.

        Returns:
            `StepResult`. With a negative status nothing was written.
        """
        f, g = objective.first_pass() if evaluated is None else evaluated
        return self._advance(f, g, objective, watch)

    def propose(self, objective: Objective, evaluated: Evaluated | None = None) -> ProposedStep:
        """What `step` would do, without doing it: a `ProposedStep`.

        The side effects of the objective's first pass are the caller's to undo.

        Args:
            objective, evaluated: see `step`.
        """
        f, g = objective.first_pass() if evaluated is None else evaluated
        return self._propose(f, g, objective, self._read_state())[0]

    # Without this, autograph would rewrite `update` in some callers' functions and not in others'.
    @tf.autograph.experimental.do_not_convert
    def _advance(self, f, g, objective, watch=None):
        """From f and g to the next committed point. Both entry points end here."""
        old = self._read_state()
        if self._memory.is_late():
            old = self._memory.read_or(self._first_leaves(self._vector.read()))
        rates = self._rates()
        proposed, grad_norm, evaluated = self._propose(f, g, objective, old)
        watched = watch(proposed) if watch else {}
        known = () if evaluated is None else (f, g)
        here, there = (proposed.x, *known), (proposed.x_new, *(evaluated or ()))
        # Who watches may read what is stored, and a buffer that is being read is copied instead of written in place.
        with tf.control_dependencies(list(watched.values())):
            evaluated = self._commit(proposed.status, here, there, old, proposed.state) or None
        # After the commit: what a stored value tells of itself is then what it is after the step.
        logs = {"loss": f, "grad_norm": grad_norm, **rates, **states.scalars(proposed.state), **watched}
        return StepResult(proposed.status, logs, evaluated)

    @tf.autograph.experimental.do_not_convert
    def _propose(self, f, g, objective, old):
        """(`ProposedStep`, norm of g before clipping, (f, g) at x_new or None) from the leaves of the old state."""
        x, grad_norm = self._vector.read(), linalg.norm(g)
        g = self._clipped(g)
        x_new, new, evaluated = self._updated(x, f, g, states.unflatten(old), objective)
        status = first_failure(
            (~tf.math.is_finite(f), Status.NONFINITE_LOSS),
            (~tf.math.is_finite(grad_norm), Status.NONFINITE_GRADIENT),
            (~linalg.all_finite(x_new), Status.NONFINITE_STEP),
            *states.failures(new),
        )
        if "status" in new:
            status = tf.where(status == Status.RUNNING, tf.cast(new["status"], tf.int32), status)
        return ProposedStep(self._vector.layout, x, f, g, x_new, new, status), grad_norm, evaluated

    def updated(
        self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective | None = None
    ) -> tuple[tf.Tensor, dict[str, typing.Any], Evaluated | None]:
        """What `update` makes of a step, checked: for this class, and for optimizers that contain another one.

        Args:
            x, f, g: [n], [], [n].
            state: nested dict.
            objective: an `Objective`, for optimizers that ask for one.

        Returns:
            (x_new [n], leaves of the new state by path, (f, g) at x_new or None).

        Raises:
            ValueError: something of another structure, shape or dtype came back.
        """
        return self._updated(x, f, self._clipped(g), state, objective)

    def _clipped(self, g):
        limit = self.global_clipnorm
        return g if limit is None else linalg.clip_norm(g, linalg.norm(g), limit)

    def _updated(self, x, f, g, state, objective):
        self._rate_inside = self._rate_as_tensor()
        try:
            returned = self._call_update(x, f, g, state, objective)
        except (TypeError, AttributeError, NotImplementedError) as error:
            if "symbolic" not in str(error).lower():
                raise
            raise ValueError(
                f"{type(self).__name__}.update{users_line(error)} asks in Python for the value of a tensor, which "
                "compiled code does not have yet: compute with TensorFlow, decide with tf.where, tf.cond or "
                "tf.while_loop, or look at values in TrainLoop(..., eager=True). TensorFlow says: "
                f"{str(error).partition('. ')[0]}"
            ) from error
        finally:
            self._rate_inside = None
        return self._checked(returned, x, f, g, state)

    def _checked(self, returned, x, f, g, state):
        """What `update` returned for these arguments, as `updated` returns it."""
        method = type(self).__name__
        if not isinstance(returned, tuple) or len(returned) not in (2, 3):
            raise ValueError(f"{method}.update must return (x_new, state), received {type(returned).__name__}")
        x_new, state_new, *rest = returned
        x_new = states.check_tensor(f"{method}.update: x_new", x, x_new)
        leaves = states.check_update(method, states.flatten(state), state_new)
        if not rest:
            return x_new, leaves, None
        names = (f"{method}.update: f at x_new", f"{method}.update: g at x_new")
        return x_new, leaves, tuple(map(states.check_tensor, names, (f, g), rest[0]))

    def _rate_as_tensor(self):
        rate, dtype = self.learning_rate, self._vector.layout.dtype
        if isinstance(rate, float):  # tf.cast would take it through float32
            return tf.constant(rate, dtype)
        return tf.cast(rate.value if isinstance(rate, keras.Variable) else rate, dtype)

    def _rate_names(self):
        """Columns of the learning rates, which schedules and hooks may change: this optimizer's, and those inside."""
        return ["learning_rate"] if self._has_rate else []

    def _rates(self):
        """Learning rates of the step that comes, by column: scalars of the dtype of x."""
        return {"learning_rate": self._rate_as_tensor()} if self._has_rate else {}

    @abc.abstractmethod
    def _call_update(self, x, f, g, state, objective):
        """`update` with the arguments that its contract has."""

    @property
    def state_nbytes(self) -> int:
        """Bytes of the state in this process, as large as it is now."""
        return self._memory.nbytes

    def restart(self) -> None:
        """As it was when it was built, at the point that the variables hold now: the first state, and no step taken."""
        self._memory.restart(self._first_leaves(self._vector.read()))
        for count in (self.iterations, self._skipped_steps, self._last_failure):
            count.assign(tf.zeros_like(count))

    def serve(self, outer: "WholeVectorOptimizer") -> None:
        """Work inside another optimizer from now on: on its vector, with its count of steps.

        Args:
            outer: the optimizer that contains this one.

        Raises:
            ValueError: this one is built, so it has variables and a state of its own.
        """
        if self.built:
            raise ValueError(f"{self.name} is in use by itself; give {type(outer).__name__} a new one")
        if self._outer and self._outer[0] is not outer:
            raise ValueError(
                f"{self.name} works inside another optimizer already; give {type(outer).__name__} a new one"
            )
        self._known_vector, self._outer = outer._known_vector, (outer,)

    def _outermost(self):
        return self._outer[0]._outermost() if self._outer else self

    def _commit(self, status, here, there, old, new):
        """Write the new point and state, or the old ones again after a failure.

        Args:
            status: int32 [].
            here, there: (x [n], and more tensors that belong to this point), before and after the step.
            old, new: leaves of the state by path.

        Returns:
            The further tensors, of the point where the step ended.
        """
        taken = status >= 0
        tensors = {path: leaf for path, leaf in new.items() if not isinstance(leaf, StoredValue)}
        kept = linalg.choose_all(taken, [*there, *tensors.values()], [*here, *(old[path] for path in tensors)])
        self._vector.assign(kept[0])
        self._memory.commit(taken, {**new, **dict(zip(tensors, kept[len(there) :], strict=True))})
        self.iterations.assign_add(tf.cast(taken, self.iterations.dtype))
        self._skipped_steps.assign_add(tf.cast(~taken, "int64"))
        self._last_failure.assign(tf.where(taken, self._last_failure, status))
        return tuple(kept[1 : len(there)])

    def finalize_variable_values(self, var_list: typing.Any) -> None:
        """Called by `model.fit` when it ends: the moment to say that steps were not taken, which `fit` does not see.

        Args:
            var_list: the model's variables, which have their final values already.
        """
        super().finalize_variable_values(var_list)
        skipped = self.skipped_steps
        if skipped:
            reason = Status(int(tf.convert_to_tensor(self._last_failure))).message
            warnings.warn(f"{skipped} steps were not taken; the last one because {reason}", stacklevel=2)

    def _read_state(self):
        if not self.built:
            raise self._not_built()
        self._catch_up()
        return self._memory.read()

    def _not_built(self):
        return ValueError(f"{type(self).__name__} is not built and has no state; call build(model.trainable_variables)")

    def _first_leaves(self, x):
        return states.as_tensors(states.flatten(self.init_state(x)), like=x)

    def _catch_up(self):
        """Give the state its first values where the variables had none when it was made, see `Memory`."""
        if self._memory.is_late() and states.have_values(self._vector.variables):
            with tf.init_scope():
                self._memory.begin(self._first_leaves(self._vector.read()))


def _keras_rate(learning_rate):
    """What Keras's constructor takes. It insists on a rate; a function is one that makes no variable."""
    if learning_rate is None:
        return lambda: 1.0
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule) or callable(learning_rate):
        return learning_rate
    if isinstance(learning_rate, str):
        raise ValueError(f"learning_rate must be a positive number, received {learning_rate!r}; use name=... for names")
    return checks.real("learning_rate", learning_rate, above=0)
