"""Derivatives of a model by its inputs: what the residuals of differential equations are made of.

    u = model(p)    [N, k]          p [N, d] points
    du              [N, k, d]       du_i / dp_j
    d2u             [N, k, d, d]    and so on

A derivative of order q is the gradient of one of order q - 1, summed over the points: each of them depends on its own
point alone. Derivatives in another order of the variables are equal, so one of order q costs a backward pass for each
multi-index of order q - 1, of which there are (d + q - 2)! / ((q - 1)! (d - 1)!) for each output.
"""

import itertools
import weakref
from collections.abc import Callable

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.objectives.derivatives import gradient_graph
from trainloop.objectives.finder import find

_HIGHEST = 4

# Models whose second derivatives were looked at, so that it is done once.
_checked: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def derivatives(
    model: keras.Model | Callable[[tf.Tensor], tf.Tensor], points: tf.Tensor, order: int = 1
) -> tuple[tf.Tensor, ...]:
    """Values and derivatives of a model by its inputs, up to an order.

    Differentiable by the weights, and efficient inside of residuals: one call, no tapes.

    Args:
        model: a Keras model, or any function p [N, d] -> u [N, k] whose rows depend on one point each.
        points: p [N, d], floating.
        order: of the highest derivative, 1 to 4.

    Returns:
        (u [N, k], du [N, k, d], d2u [N, k, d, d], ...): order + 1 tensors. d2u[:, i, j, l] is the derivative of u_i by
        p_j and p_l.

    Raises:
        ValueError: points or values of another shape, u does not depend on p, or a layer has first derivatives only
            (normalisation layers and bilinear resizing stop gradients inside).

    Examples:
        >>> p = tf.constant([[1.0, 2.0], [3.0, 4.0]])
        >>> u, du, d2u = derivatives(lambda p: p[:, :1] ** 2 * p[:, 1:], p, order=2)
        >>> du[:, 0].numpy()
        array([[ 4.,  1.],
               [24.,  9.]], dtype=float32)
        >>> d2u[0, 0].numpy()
        array([[4., 2.],
               [2., 0.]], dtype=float32)
    """
    order = _checked_order(order)
    points = tf.convert_to_tensor(points)
    if points.shape.rank != 2 or points.shape[1] is None or not points.dtype.is_floating:
        raise ValueError(
            f"points must be a floating tensor [N, d] with a known d, received {points.dtype.name} of shape "
            f"{points.shape}; for points in several tensors join them, or pass a function of one of them"
        )
    if order > 1:
        _check_differentiable_twice(model, points)
    return tuple(_stacked(by_index, points.shape[1]) for by_index in _by_index(model, points, order))


def _by_index(model, points, order):
    """[{multi-index: derivative [N, k]}] of the orders 0 to `order`; multi-indices are sorted tuples of inputs."""
    if order == 0:
        u = tf.convert_to_tensor(model(points))
        if u.shape.rank != 2 or u.shape[1] is None:
            raise ValueError(f"the model must return values [N, k] with a known k, received shape {u.shape}")
        return [{(): tf.unstack(u, axis=1)}]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        known = _by_index(model, points, order - 1)
    new = {}
    for index, outputs in known[-1].items():
        gradients = [_gradient(tape, output, points, order) for output in outputs]
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
