"""Derivatives of a model by its inputs: what the residuals of differential equations are made of.

    u = model(p)    [N, k]          p [N, d] points
    du              [N, k, d]       du_i / dp_j
    d2u             [N, k, d, d]    and so on

A derivative of order q is the gradient of one of order q - 1, summed over the points: each of them depends on its own
point alone. Derivatives in another order of the variables are equal, so one of order q costs a backward pass for each
multi-index of order q - 1, of which there are (d + q - 2)! / ((q - 1)! (d - 1)!) for each output. Where only some
derivatives are wanted, passes that lead to none of them are left out.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.objectives.derivatives import gradient_graph
from trainloop.objectives.finder import find

_HIGHEST = 4

# Models whose second derivatives were looked at, so that it is done once.
_checked: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def derivatives(
    model: keras.Model | Callable[[tf.Tensor], tf.Tensor],
    points: tf.Tensor,
    order: int | Sequence[tuple[int, ...]] = 1,
) -> tuple[tf.Tensor, ...]:
    """Values and derivatives of a model by its inputs: all up to an order, or those that are named.

    Differentiable by the weights, and efficient inside of residuals: one call, no tapes.

    Args:
        model: a Keras model, or any function p [N, d] -> u [N, k] whose rows depend on one point each.
        points: p [N, d], floating.
        order: of the highest derivative, 1 to 4. Or the derivatives that are wanted, each a multi-index: the inputs,
            one to four of them, by which u is differentiated. What is not wanted is not computed: for u_t and u_xx
            of points (x, t), [(1,), (0, 0)] saves u_tt, and the gradient of it by the weights.

    Returns:
        (u [N, k], du [N, k, d], d2u [N, k, d, d], ...): order + 1 tensors. d2u[:, i, j, l] is the derivative of u_i by
        p_j and p_l. For multi-indices (u [N, k], and one tensor [N, k] for each).

    Raises:
        ValueError: points or values of another shape, a multi-index that points do not have, u does not depend on p,
            or a layer has first derivatives only (normalisation layers and bilinear resizing stop gradients inside).

    Examples:
        >>> p = tf.constant([[1.0, 2.0], [3.0, 4.0]])
        >>> u, du, d2u = derivatives(lambda p: p[:, :1] ** 2 * p[:, 1:], p, order=2)
        >>> du[:, 0].numpy()
        array([[ 4.,  1.],
               [24.,  9.]], dtype=float32)
        >>> d2u[0, 0].numpy()
        array([[4., 2.],
               [2., 0.]], dtype=float32)
        >>> u, u_y, u_xx = derivatives(lambda p: p[:, :1] ** 2 * p[:, 1:], p, [(1,), (0, 0)])
        >>> u_xx[:, 0].numpy()
        array([4., 8.], dtype=float32)
    """
    points = tf.convert_to_tensor(points)
    if points.shape.rank != 2 or points.shape[1] is None or not points.dtype.is_floating:
        raise ValueError(
            f"points must be a floating tensor [N, d] with a known d, received {points.dtype.name} of shape "
            f"{points.shape}; for points in several tensors join them, or pass a function of one of them"
        )
    d = points.shape[1]
    if isinstance(order, Sequence):
        wanted = [_checked_index(index, d) for index in order]
    else:
        wanted = list(itertools.combinations_with_replacement(range(d), _checked_order(order)))
    highest = max(map(len, wanted), default=0)
    if highest > 1:
        _check_differentiable_twice(model, points)
    known = _by_index(model, points, highest, wanted)
    if isinstance(order, Sequence):
        return tuple(tf.stack(known[len(index)][index], 1) for index in [(), *wanted])
    return tuple(_stacked(by_index, d) for by_index in known)


def _by_index(model, points, order, wanted):
    """[{multi-index: derivative [N, k]}] of the orders 0 to `order`; multi-indices are sorted tuples of inputs.

    Only what leads to the wanted multi-indices is there.
    """
    if order == 0:
        u = tf.convert_to_tensor(model(points))
        if u.shape.rank != 2 or u.shape[1] is None:
            raise ValueError(f"the model must return values [N, k] with a known k, received shape {u.shape}")
        return [{(): tf.unstack(u, axis=1)}]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        known = _by_index(model, points, order - 1, wanted)
    new = {}
    for index in {index[: order - 1]: None for index in wanted if len(index) >= order}:
        gradients = [_gradient(tape, output, points, order) for output in known[-1][index]]
        for j in range(index[-1] if index else 0, points.shape[1]):
            new[(*index, j)] = [g[:, j] for g in gradients]
    return [*known, new]


def _gradient(tape, output, points, order):
    g = tape.gradient(output, points)
    if g is None and order == 1:
        raise ValueError("the values of the model do not depend on the points through differentiable operations")
    return tf.zeros_like(points) if g is None else g  # of a derivative that is constant, as those of lines are


def _stacked(by_index, d):
    """[N, k, d, ..., d] of {multi-index: list of k tensors [N]}."""
    order = len(next(iter(by_index)))
    outputs = len(by_index[next(iter(by_index))])
    indices = list(itertools.product(range(d), repeat=order))
    entries = [by_index[tuple(sorted(index))][i] for i in range(outputs) for index in indices]
    return tf.reshape(tf.stack(entries, 1), [-1, outputs, *[d] * order])


def _checked_order(order):
    order = checks.integer("order", order, at_least=1)
    if order > _HIGHEST:
        raise ValueError(f"order must be at most {_HIGHEST}, received {order}")
    return order


def _checked_index(index, d):
    """A multi-index, sorted."""
    if not isinstance(index, (list, tuple)) or not 1 <= len(index) <= _HIGHEST:
        raise ValueError(
            f"a multi-index is a tuple of one to {_HIGHEST} inputs, as (0, 0) for the second derivative by the first "
            f"one, received {index!r}"
        )
    inputs = [checks.integer("an input in a multi-index", j, at_least=0) for j in index]
    if max(inputs) >= d:
        raise ValueError(f"points have {d} inputs, counted from 0; received the multi-index {tuple(index)!r}")
    return tuple(sorted(inputs))


def _check_differentiable_twice(model, points):
    """Raise where the derivatives of a Keras model by autodiff are silently wrong from the second on.

    A function of one's own may stop gradients on purpose; layers of TensorFlow and Keras do it to save work.
    """
    if not isinstance(model, keras.Model) or model in _checked:
        return
    graph = gradient_graph(model, points)
    stopped = find(graph).stopped if graph else ()
    if stopped:
        raise ValueError(
            f"the model has first derivatives only: {', '.join(stopped.values())} stops gradients, as normalisation "
            "layers and bilinear resizing do, so second derivatives would be wrong; use other layers, or pass a "
            "function of the points, lambda p: model(p), where that is meant so"
        )
    _checked.add(model)
