"""The contracts of an optimizer on the flat parameter vector.

    method                      init_state(x)         update
    gradient descent            {}                    x - t g
    heavy ball                  {"velocity": 0}       v <- m v + g;  x - t v
    ellipsoid method            {"B": I, "radius"}    x - r/(n+1) B g / sqrt(g'B g);  B, r contracted
    limited-memory BFGS         {"s", "y": rings}     x + t d,  d = -H g,  t from a line search on the objective

The first three need x and g: `GlobalVectorOptimizer`. It has two entry points: `model.fit` comes in through Keras's
public `apply`, the compiled loop through `step`. Both end in the same `update` and the same commit, so for the same
batches they give the same weights, bit for bit.

The last one also evaluates the objective elsewhere: `GlobalObjectiveOptimizer`. `model.fit` has no objective to
hand out, so these work in `TrainLoop` and in `minimize` only.
"""

import abc
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from trainloop.objectives.base import Objective
from trainloop.optimizer import state as states
from trainloop.optimizer import validation
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.types import LearningRate, ObjectiveUpdate, State, Variable, VectorUpdate
from trainloop.vectors import fusion
from trainloop.vectors.layout import pack_gradients


class GlobalVectorOptimizer(WholeVectorOptimizer):
    """An optimizer that needs the whole x and the whole g. Works in `model.compile` and in `TrainLoop`.

    A subclass defines `init_state` and `update`. What its author must know, in full:

    1. Both are pure and traced once: tensors in, tensors out. Values decide through `tf.where`, `tf.cond`,
        `tf.while_loop`.
    2. `update` returns the keys, shapes and dtypes that `init_state` made. The base checks this while
        tracing.
    3. Every scalar of the state is logged at every step under its key.
    4. Hyper-parameters are constructor arguments, validated there, and returned by `get_config`.
    5. Randomness comes from a seed in the state, through `tf.random.stateless_*`.
    6. An optimizer that can end keeps an int32 scalar `"status"` in its state; codes are in `trainloop.Status`.

    Args:
        learning_rate: positive number, a Keras schedule or a function without arguments; None for optimizers
            that have none. Inside `update`, `self.learning_rate` is a scalar tensor of the dtype of x.
        global_clipnorm: positive number or None. g is shortened to this norm before `update` sees it, and
            after all replicas are summed.
        name: for variables and messages.
        kwargs: other options of Keras optimizers raise an error with the reason and the replacement.

    Raises:
        ValueError: an option out of range or not supported, or a subclass written for an older optimizer API.

    Examples:
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

    @abc.abstractmethod
    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        """One step.

        Args:
            x: [n], the point.
            g: [n], the gradient there.
            state: what `init_state` made or the last step returned.

        Returns:
            (x_new [n], state_new).
        """

    def _call_update(self, x, f, g, state, objective):
        if states.holds_stored_values(state) or not fusion.is_worth_it(x):
            return self.update(x, g, state)
        return fusion.fused(self._update_at_rate, x, g, state, self.learning_rate)

    def _update_at_rate(self, x, g, state, rate):
        self._rate_inside = rate
        # Checked here too: what leaves a traced function is a tensor, and was converted without knowing to what.
        x_new, leaves, _ = self._checked(self.update(x, g, state), x, None, None, state)
        return x_new, states.unflatten(leaves)

    def apply(
        self,
        grads: Iterable[tf.Tensor | tf.IndexedSlices | None],
        trainable_variables: Iterable[Variable] | None = None,
    ) -> None:
        """The entry point of `model.fit` and of `apply_gradients`.

        Args:
            grads: one gradient per variable: a tensor, an `IndexedSlices`, or None for zeros.
            trainable_variables: the variables they belong to, in any order; may be left out once the
                optimizer is built.

        Raises:
            ValueError: not exactly the variables the optimizer was built with, every gradient is None, or there are
                several replicas.
        """
        validation.several_replicas()
        grads = list(grads)
        if trainable_variables is None and not self.built:
            raise ValueError("the first call needs the variables too: apply(grads, trainable_variables)")
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
            grads = self._vector.arrange(grads, trainable_variables)
        g = pack_gradients(self._vector.layout, grads)
        self._advance(tf.zeros([], g.dtype), g, None)


class GlobalObjectiveOptimizer(WholeVectorOptimizer):
    """An optimizer that also evaluates the objective: line searches, trust regions, Hessian products.

    Works in `TrainLoop` and `minimize`. All rules of `GlobalVectorOptimizer` hold; `update` alone is different.
    Evaluations inside `update` cost a forward and backward pass of the network each; they are counted by kind.

    Args:
        learning_rate, name, kwargs: see `GlobalVectorOptimizer`. There is no `global_clipnorm`: values and
            slopes along a line must belong to the same function.

    Examples:
        >>> class SteepestDescent(GlobalObjectiveOptimizer):
        ...     def init_state(self, x):
        ...         return {"length": tf.ones([], x.dtype)}
        ...     def update(self, x, f, g, state, objective):
        ...         found = linesearch.armijo(objective, x, f, g, -g, 2 * state["length"])
        ...         return found.x, {"length": found.t}, (found.f, found.g)
    """

    def __init__(self, learning_rate: LearningRate | None = None, *, name: str | None = None, **kwargs: Any) -> None:
        if kwargs.get("global_clipnorm") is not None:
            raise ValueError(
                f"{type(self).__name__} takes no global_clipnorm: it compares values of f with slopes, which must "
                "belong together; bound its steps instead, or clip in a GlobalVectorOptimizer"
            )
        super().__init__(learning_rate, name=name, **kwargs)

    @abc.abstractmethod
    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        """One step.

        Args:
            x: [n], the point.
            f: [], the objective there.
            g: [n], the gradient there.
            state: what `init_state` made or the last step returned.
            objective: an `Objective`, the same function for the whole step.

        Returns:
            (x_new [n], state_new), or (x_new, state_new, (f_new [], g_new [n])) if the objective and its gradient at
            x_new are known: that saves an evaluation where the next step is on the same objective.
        """

    def _call_update(self, x, f, g, state, objective):
        return self.update(x, f, g, state, objective)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """The entry point of `model.fit`, which raises.

        Args:
            grads, trainable_variables: ignored.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self).__name__} evaluates the loss at other points than the current one, which model.fit "
            "and apply_gradients cannot offer; for fit wrap the model, trainloop.VectorModel(model); or use "
            f"trainloop.TrainLoop(model, {type(self).__name__}(...), loss), or trainloop.minimize for a function"
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, as JSON-able values. Subclasses add their own."""
        config = super().get_config()
        del config["global_clipnorm"]
        return config
