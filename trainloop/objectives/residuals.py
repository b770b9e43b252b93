"""The loss of named residuals: a weighted sum of mean squares, for least squares and physics-informed networks.

    f = sum_k w_k mean(r_k^2) + sum of the model's own losses       r_k = residual_k(model, points_k)  [N_k] or [N_k, c]

    r = sqrt(w_k / m_k) r_k, end to end  [m]                        m_k entries in r_k, so that f = r'r

The Jacobian of r is in `rows`.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.objectives import keras_losses
from trainloop.objectives.batch_loss import BatchLoss, own_losses, share_of_samples


class Term(NamedTuple):
    """One part of f, w mean(r^2): its name, r as a function of its points, these points, and w or None for 1.

    `function` maps points to r [N] or [N, c]. Points are a structure of tensors with a common batch dimension.
    """

    name: str
    function: Any
    points: Any
    weight: Any

    @property
    def title(self):
        """What messages call it."""
        return "the residual" if self.name is None else f"the residual {self.name!r}"

    def at(self, points=None):
        """r at the term's points or at others: a floating tensor [N] or [N, c].

        Raises:
            ValueError: it is something else.
        """
        expected = "a tensor [N] or [N, c]"
        r = self.floating(expected, points)
        if r.shape.rank not in (1, 2):
            raise ValueError(
                f"{self.title} must be {expected}, one row for each point, received shape {r.shape}; do not reduce it, "
                "the mean of its squares is taken for you"
            )
        return r

    def floating(self, expected, points=None):
        """What the function returns, as a floating tensor.

        Args:
            expected: what it should be, for the message.
            points: as for `at`.
        """
        return keras_losses.floating(self.function(self.points if points is None else points), self.title, expected)

    def scaled(self, r, total):
        """sqrt(w / m) r, end to end.

        Args:
            r: of all points or of some of them.
            total: m, the number of entries of all of them.
        """
        weight = 1.0 if self.weight is None else self.weight
        return tf.reshape(r, [-1]) * tf.sqrt(tf.cast(weight, r.dtype) / tf.cast(total, r.dtype))


class ResidualLoss(BatchLoss):
    """Residuals of a model and its points.

    Args:
        residuals: {name: function (model, points) -> r [N] or [N, c]}, or (model, points, training). The points of a
            term are what the batch has under its name: a tensor or a tuple of tensors. Or one such function, for which
            the points are the batch itself.
        loss_weights: {name: w}, numbers that are not negative, or variables, which may be changed during a run;
            None, or a name that is left out, for ones. A single w for a single function.

    Attributes:
        names: of the terms in their order; none where there is one function without a name.

    Raises:
        ValueError: something else than functions, or weights that do not fit.
    """

    has_rows = True

    def __init__(self, residuals, loss_weights=None):
        super().__init__()
        named = residuals if isinstance(residuals, Mapping) else {None: residuals}
        if not named:
            raise ValueError("residuals must have at least one term, received an empty dict")
        for name, function in named.items():
            _check_function(name, function)
        self.names = tuple(name for name in named if name is not None)
        self._functions = dict(named)
        if not self.names and loss_weights is not None and not isinstance(loss_weights, Mapping):
            loss_weights = {None: loss_weights}
        self._weights = checked_weights(loss_weights, tuple(named))

    def terms(self, model, batch, training):
        squares = self._squares(model, batch, training)
        f = weighted_sum(squares, self._weights)
        return f, own_losses(model, f.dtype), squares if self.names else None

    def weighted_terms(self, model, batch, training):
        squares = self._squares(model, batch, training)
        terms = weighted(squares, self._weights)
        dtype = next(iter(terms.values())).dtype
        return terms, own_losses(model, dtype) if model.losses else None, squares

    def _squares(self, model, batch, training):
        squares = {}
        for term in self.row_terms(model, batch, training):
            squares[term.name] = tf.reduce_mean(tf.square(term.at()))
        return squares

    def row_terms(self, model, batch, training=True):
        """The `Term`s for a batch."""
        return [
            Term(name, self._bound(function, model, training), self._points(name, batch), self._weights.get(name))
            for name, function in self._functions.items()
        ]

    def check_points(self, names):
        """Raise where there are points that no term takes.

        Args:
            names: of the points.

        Raises:
            ValueError: says which.
        """
        unused = [name for name in names if self.names and name not in self.names]
        if unused:
            raise ValueError(
                f"there are points for {', '.join(map(repr, unused))}, which no residual is called"
                f"{checks.near_miss(unused[0], self.names)}; residuals are {', '.join(map(repr, self.names))}"
            )

    def share(self, part, batch, count=None):
        """The fraction of the samples, where all terms have equally many."""
        lengths = {tf.nest.flatten(points)[0].shape[0] for points in self._all_points(batch)}
        if len(lengths) > 1:
            raise ValueError(
                f"the points of the terms have different numbers ({', '.join(map(str, sorted(lengths, key=str)))}), so "
                "a batch cannot be cut into parts; use microbatch_size=None"
            )
        return share_of_samples(part, batch, count)

    def check_parts(self, predictions, batch):
        """Nothing to check: the mean of squares is one over samples."""

    def _all_points(self, batch):
        return [self._points(name, batch) for name in self._functions]

    def _points(self, name, batch):
        if name is None:
            return batch
        if not isinstance(batch, Mapping):
            raise ValueError(
                f"residuals by name need their points by name, {{{name!r}: points, ...}}; received "
                f"a {type(batch).__name__}"
            )
        if name not in batch:
            raise ValueError(
                f"there are no points for the residual {name!r}{checks.near_miss(name, list(batch))}; the batch has "
                f"{', '.join(map(repr, batch))}"
            )
        return batch[name]

    @staticmethod
    def _bound(function, model, training):
        extra = {"training": training} if _takes_training(function) else {}
        return lambda points: function(model, points, **extra)


def weighted(terms, weights):
    """{name: w_k terms_k []}, see `weighted_sum`."""
    return {k: v if weights.get(k) is None else tf.cast(weights[k], v.dtype) * v for k, v in terms.items()}


def weighted_sum(terms, weights):
    """sum_k w_k terms_k [] of {name: []} and {name: weight}, 1 where there is none."""
    values = list(weighted(terms, weights).values())
    return values[0] if len(values) == 1 else tf.add_n(values)


def checked_weights(weights, names):
    """{name: number, variable or tensor} of `loss_weights` for terms.

    Raises:
        ValueError: not a dict, a name that no term has, or a number that is negative.
    """
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise ValueError(f"loss_weights must be a dict with a number for each term, received {weights!r}")
    for name in weights:
        if name not in names:
            known = [n for n in names if n is not None]
            raise ValueError(
                f"loss_weights has {name!r}, which no term is called{checks.near_miss(str(name), known)}; terms are "
                f"{', '.join(map(repr, known)) or 'not named'}"
            )
    return {name: _checked_weight(name, weight) for name, weight in weights.items()}


def _checked_weight(name, weight):
    if isinstance(weight, (tf.Variable, keras.Variable)) or tf.is_tensor(weight):
        return weight
    return checks.real("loss_weights" if name is None else f"loss_weights[{name!r}]", weight, at_least=0)


def _check_function(name, function):
    where = "residuals" if name is None else f"residuals[{name!r}]"
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(f"residuals must have non-empty strings as names, received {name!r}")
    if isinstance(function, type) or not callable(function):
        raise ValueError(f"{where} must be a function (model, points) -> residuals [N], received {function!r}")


def _takes_training(function):
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some that are not written in Python have no signature
        return False
