"""Optimizers that contain another one: they take an instance, keep its state under "inner", and call its update."""

import copy
from typing import Any

import keras
import tensorflow as tf

from trainloop.objectives.base import Objective
from trainloop.optimizer import state as states
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer, GlobalVectorOptimizer
from trainloop.types import Evaluated, State


class Wrapper(GlobalObjectiveOptimizer):
    """An optimizer that contains another one.

    A subclass defines `init_state` and `update`; it takes `self.inner_state(x)` into the first and `self.inner_update`
    into the second. The inner optimizer works on the vector and the step counter of this one. A `global_clipnorm` of
    the inner one acts on the gradient that it is given.

    Args:
        inner: the optimizer, not used by anything else.
        takes: the class it must belong to.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> class Doubled(Wrapper):
        ...     def init_state(self, x):
        ...         return self.inner_state(x)
        ...
        ...     def update(self, x, f, g, state, objective):
        ...         x_new, state, _ = self.inner_update(x, f, g, state, objective)
        ...         return x + 2 * (x_new - x), state
        ...
        >>> minimize(lambda x: tf.reduce_sum(x**2), [3.0, 4.0], Doubled(SimpleGD(0.1)), max_steps=50).f < 1e-6
        True
    """

    def __init__(
        self,
        inner: WholeVectorOptimizer,
        takes: type[WholeVectorOptimizer] = WholeVectorOptimizer,
        *,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        if not isinstance(inner, takes):
            kind = "a GlobalVectorOptimizer" if takes is GlobalVectorOptimizer else "an optimizer of this package"
            raise ValueError(
                f"{type(self).__name__} wraps {kind}, received {inner!r}; pass an instance such as SimpleGD(0.1)"
            )
        # Keras would take an optimizer that it finds among the attributes for a part to save; it has no variables.
        self._inner = (inner,)

    @property
    def inner(self) -> WholeVectorOptimizer:
        """The optimizer inside."""
        return self._inner[0]

    @property
    def uses_gradient(self) -> bool:  # type: ignore[override]  # a constant of other classes, here it depends
        """Whether the inner optimizer does."""
        return self.inner.uses_gradient

    @property
    def uses_term_gradients(self) -> bool:  # type: ignore[override]
        """Whether the inner method does."""
        return self.inner.uses_term_gradients

    @property
    def ends_by_itself(self) -> bool:  # type: ignore[override]
        """Whether the inner optimizer does."""
        return self.inner.ends_by_itself

    def inner_state(self, x: tf.Tensor) -> State:
        """The inner optimizer's first state at x [n], and its status if it has one: parts of this one's first state."""
        self.inner.serve(self)
        state = self.inner.init_state(x)
        states.flatten(state)
        # An optimizer without a memory has no entry: an empty dict is no state.
        return ({"inner": state} if state else {}) | _status_of(state)

    def inner_update(
        self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective | None
    ) -> tuple[tf.Tensor, State, Evaluated | None]:
        """One step of the inner optimizer.

        Args:
            x, f, g: [n], [], [n], the point, the objective and its gradient there.
            state: of this optimizer, the inner one's under "inner".
            objective: an `Objective`; None for inner optimizers that ask for none.

        Returns:
            (x_new [n], parts of this optimizer's new state, (f, g) at x_new or None).
        """
        x_new, leaves, evaluated = self.inner.updated(x, f, g, state.get("inner", {}), objective)
        new = states.unflatten(leaves)
        return x_new, ({"inner": new} if new else {}) | _status_of(new), evaluated

    def _saved_variables(self):
        return super()._saved_variables() | self._inner_rates()

    def _inner_rates(self):
        """Learning rates that are variables, of all optimizers inside."""
        rate = self.inner.learning_rate
        deeper = self.inner._inner_rates() if isinstance(self.inner, Wrapper) else {}
        own = {"learning_rate": rate} if isinstance(rate, keras.Variable) else {}
        return {f"inner.{name}": variable for name, variable in (own | deeper).items()}

    def _rate_names(self):
        return super()._rate_names() + [f"inner.{name}" for name in self.inner._rate_names()]

    def _rates(self):
        return super()._rates() | {f"inner.{name}": rate for name, rate in self.inner._rates().items()}

    def settings(self) -> tuple[Any, ...] | None:
        outer, inner = super().settings(), self.inner.settings()
        return None if outer is None or inner is None else (outer, inner)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments; the inner optimizer as Keras serialises it."""
        return {**super().get_config(), "inner": keras.optimizers.serialize(self.inner)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "Wrapper":
        """The inverse of `get_config`.

        Args:
            config: what it returned.
            custom_objects: classes by name that Keras does not know, such as the inner optimizer's.
        """
        config = copy.deepcopy(config)  # Keras writes into what it deserialises
        config["inner"] = keras.optimizers.deserialize(config["inner"], custom_objects=custom_objects)
        return cls(**config)


def _status_of(state):
    return {"status": tf.convert_to_tensor(state["status"])} if "status" in state else {}
