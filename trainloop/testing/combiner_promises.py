"""What every combiner must do, whoever wrote it.

    check_combiner(MyCombiner(c=0.5))

goes through the list below in float32 and float64 on matrices of one to four gradients in five unknowns, and raises
`ConformanceError` with the first promise that is broken.

    config        get_config holds JSON values and all arguments, and makes the same combiner again
    shapes        g is [n] in the dtype of the gradients; the state keeps structure, shapes and dtypes
    purity        called twice it gives the same bits
    compiled      compiled it gives what it gives as Python, to rounding
    finite        gradients that are 0, parallel, opposite or tiny give a finite g; if all are 0, g is 0
    agreement     of equal gradients g is a positive multiple
"""

import inspect
import json
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainloop.combiners import Combiner
from trainloop.optimizer import state as states
from trainloop.testing.conformance import ConformanceError
from trainloop.vectors import linalg


def check_combiner(combiner: Combiner) -> None:
    """Put a combiner through the list above.

    Args:
        combiner: a `trainloop.combiners.Combiner`.

    Raises:
        ConformanceError: names the promise.

    Examples:
        >>> testing.check_combiner(combiners.UPGrad())
    """
    if not isinstance(combiner, Combiner):
        raise ConformanceError(f"combiner must be a trainloop.combiners.Combiner, received {combiner!r}")
    _check_config(combiner)
    compiled = tf.function(combiner.combine, autograph=False)  # one trace for all cases of a shape
    for dtype in (tf.float32, tf.float64):
        for case, G in _cases(dtype):
            where = f"{type(combiner).__name__} in {dtype.name}, {case}"
            try:
                _check_case(combiner, compiled, G, where)
            except (TypeError, tf.errors.InvalidArgumentError) as error:  # of mixed dtypes, of decisions in Python
                raise ConformanceError(f"{where}: {' '.join(str(error).split())}") from error


def _cases(dtype: tf.DType) -> Iterator[tuple[str, tf.Tensor]]:
    """(name, G [k, 5]) of all kinds of gradients."""
    rng = np.random.default_rng(0)
    for k in (1, 2, 3, 4):
        yield f"{k} gradients", tf.constant(rng.normal(size=(k, 5)), dtype)
    a, b, c = rng.normal(size=(3, 5))
    rows = {
        "a gradient that is 0": [a, 0 * b, c],
        "gradients that are 0": [0 * a, 0 * b],
        "parallel gradients": [a, 2 * a, b],
        "opposite gradients": [a, -a],
        "a tiny gradient": [a, 1e-30 * b, c],
        "equal gradients": [a, a, a],
    }
    for case, G in rows.items():
        yield case, tf.constant(np.stack(G), dtype)


def _check_case(combiner, compiled, G, where):
    losses, state = tf.ones([G.shape[0]], G.dtype), combiner.init_state()
    (g, new), (again, _) = (combiner.combine(losses, G, state) for _ in range(2))
    if not tf.is_tensor(g) or g.shape != G.shape[1:] or g.dtype != G.dtype:
        raise ConformanceError(f"shapes: {where}: g must be a tensor {G.shape[1:]} of {G.dtype.name}, received {g!r}")
    if _described(new) != _described(state):
        raise ConformanceError(f"shapes: {where}: the state is {_described(new)}, was {_described(state)}")
    if not np.array_equal(g, again, equal_nan=True):
        raise ConformanceError(f"purity: {where}: combine gives another result when it is called again")
    if not np.all(np.isfinite(g)) or (not np.any(G) and np.any(g)):
        raise ConformanceError(f"finite: {where}: g is {g.numpy()}")
    from_graph = compiled(losses, G, state)[0]
    bound = 1e4 * linalg.eps(G.dtype) * max(1.0, np.max(np.abs(g)))
    if not np.allclose(from_graph, g, rtol=0, atol=bound):
        raise ConformanceError(f"compiled: {where}: g is {from_graph.numpy()}, as Python {g.numpy()}")
    _check_agreement(G.numpy(), g.numpy(), bound, where)


def _check_agreement(G, g, bound, where):
    if not np.any(G) or np.any(G[0] != G):
        return
    along = G[0] @ g / (G[0] @ G[0])
    if not (along > 0 and np.allclose(g, along * G[0], rtol=0, atol=bound)):
        raise ConformanceError(f"agreement: {where}: g is {g}, no positive multiple of {G[0]}")


def _described(state):
    """{path: (dtype, shape)} of the leaves."""
    leaves = {path: tf.convert_to_tensor(leaf) for path, leaf in states.flatten(state).items()}
    return {path: (leaf.dtype.name, leaf.shape.as_list()) for path, leaf in leaves.items()}


def _check_config(combiner):
    config, cls = combiner.get_config(), type(combiner)
    parameters = inspect.signature(cls).parameters.values()
    if missing := [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in config]:
        raise ConformanceError(f"config: get_config lacks the constructor's {', '.join(missing)}")
    try:
        json.dumps(config)
    except TypeError as error:
        raise ConformanceError(f"config: get_config must hold JSON values: {error}") from error
    if cls.from_config(dict(config)).get_config() != config:
        raise ConformanceError(f"config: from_config(get_config()) changes {config}")
