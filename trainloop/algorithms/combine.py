"""Several losses that may pull against each other: another optimizer, fed with one direction out of their gradients.

f = sum_k l_k                 the terms of the loss, weights multiplied in
g = combine(l [k], G [k, n])  G: their gradients, row by row; combine: see `trainloop.combiners`
x_new = inner(x, f, g)

What layers add to the loss themselves (regularizers, `add_loss`), and a term that is called "regularization", is no
party to the conflict: its gradient is added to what the combiner returns, as to any other gradient. So a small penalty
gets no equal say, as MGDA and ConFIG would give it.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainloop import checks, combiners
from trainloop.objectives.base import Objective
from trainloop.objectives.term_gradients import REGULARIZATION
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.optimizer.wrapper import Wrapper
from trainloop.types import ObjectiveUpdate, State


class Combine(Wrapper):
    """Another optimizer, fed with one direction that a combiner makes of the gradients of all terms.

    Works where f has named terms: residuals={name: function}, a loss_fn or closure that returns a dict of scalars, or a
    loss for each of several outputs. A step costs a gradient of each term; where terms share nothing but the weights
    that is little more than one gradient of f. The smallest cosine between two gradients is logged as
    "cosine/smallest": it is below 0 where two terms are in conflict.

    Args:
        inner: a `GlobalVectorOptimizer` that nothing else uses. Its `global_clipnorm` acts on the combined g. Those
            with a line search need a g that belongs to f, and are rejected.
        combiner: a `trainloop.combiners.Combiner`, or the name of one, such as "upgrad".
        terms: names of all terms but the regularization. Where they are given the cosine of every pair is logged, as
            "cosine/pde,bc".
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Raises:
        ValueError: something else; when it is traced: f has no terms, or others than `terms`.

    Examples:
        >>> def terms(model, batch):
        ...     p = model(batch[0])
        ...     return {"a": tf.reduce_mean((p - 1) ** 2), "b": tf.reduce_mean((p[:, 0] + 1) ** 2)}
        ...
        >>> optimizer = Combine(Adam(0.01), combiners.UPGrad(), terms=("a", "b"))
        >>> result = TrainLoop(model, optimizer, loss_fn=terms).run((x, y), steps=5)
        >>> cosines = result.history["cosine/a,b"]
    """

    uses_term_gradients = True

    def __init__(
        self,
        inner: GlobalVectorOptimizer,
        combiner: combiners.Combiner | str,
        terms: Sequence[str] = (),
        name: str = "combine",
        **kwargs: Any,
    ) -> None:
        super().__init__(inner, GlobalVectorOptimizer, name=name, **kwargs)  # type: ignore[type-abstract]  # not called
        self.combiner = _as_combiner(combiner)
        named = not isinstance(terms, str) and all(isinstance(term, str) and term for term in terms)
        if not named or len(set(terms)) < len(terms):
            raise ValueError(f"terms must be distinct names such as ('pde', 'bc'), received {terms!r}")
        self.terms = tuple(terms)

    def init_state(self, x: tf.Tensor) -> State:
        names = ["smallest", *map(",".join, itertools.combinations(self.terms, 2))]
        remembered = self.combiner.init_state()
        cosines = {name: tf.zeros([], x.dtype) for name in names}
        return {"cosine": cosines} | ({"combiner": remembered} if remembered else {}) | self.inner_state(x)

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        losses, G = objective.term_gradients(x)
        names = objective.term_names
        fixed = [G[i] for i, name in enumerate(names) if name == REGULARIZATION]
        rivals = [i for i, name in enumerate(names) if name != REGULARIZATION]
        if fixed:
            losses, G = tf.gather(losses, rivals), tf.gather(G, rivals)
        cosines = self._cosines(G, [names[i] for i in rivals])
        combined, remembered = self.combiner.combine(losses, G, state.get("combiner", {}))
        combined = tf.add_n([combined, *fixed]) if fixed else combined
        x_new, new, _ = self.inner_update(x, f, combined, state, objective)
        return x_new, {"cosine": cosines} | ({"combiner": remembered} if remembered else {}) | new

    def _cosines(self, G, names):
        """What is logged of the gradients of terms with these names, of which there may be none."""
        if self.terms and sorted(self.terms) != sorted(names):
            listed = f"are {', '.join(map(repr, names))}" if names else "have no names"
            raise ValueError(f"Combine: terms must name all terms of the loss, received {self.terms}; they {listed}")
        C, k = combiners.cosines(G), G.shape[0]
        pairs = list(itertools.combinations(range(k), 2))
        smallest = tf.reduce_min(tf.gather_nd(C, pairs)) if pairs else tf.ones([], G.dtype)
        logged = itertools.combinations(self.terms, 2)
        return {"smallest": smallest} | {f"{a},{b}": C[names.index(a), names.index(b)] for a, b in logged}

    def get_config(self) -> dict[str, Any]:
        combiner = keras.saving.serialize_keras_object(self.combiner)
        return {**super().get_config(), "combiner": combiner, "terms": list(self.terms)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "Combine":
        """The inverse of `get_config`.

        Args:
            config: what it returned.
            custom_objects: classes by name that Keras does not know.
        """
        combiner = keras.saving.deserialize_keras_object(config["combiner"], custom_objects=custom_objects)
        return super().from_config({**config, "combiner": combiner}, custom_objects)


def _as_combiner(given):
    if isinstance(given, combiners.Combiner):
        return given
    known = {name.lower(): getattr(combiners, name) for name in combiners.NAMES}
    if isinstance(given, str):
        return known[checks.choice("combiner", given.lower(), list(known))]()
    raise ValueError(
        f"combiner must be a trainloop.combiners.Combiner such as combiners.UPGrad(), or one of {', '.join(known)}; "
        f"received {given!r}"
    )
