"""The saved numbers of a matrix, turned into those of another storage: factored into dense and back.

A saved matrix is a dict of arrays by the names that `MatrixStorage.as_variables` gives them. Dense numbers come from
products with unit vectors, a panel at a time. Terms come from terms, or from the eigenvalues or singular values of the
dense numbers, which takes n^3 operations and is meant for n of a few thousand. A product of dilations comes only from
another one: not every matrix is one.
"""

import numpy as np
import tensorflow as tf

from trainloop.matrices.dense import Panels
from trainloop.matrices.dilation_product import GROUP, DilationProduct
from trainloop.matrices.factored import StoredProduct, StoredSum
from trainloop.matrices.rank_one_sum import RankOneSum
from trainloop.matrices.rows import Rows
from trainloop.vectors import linalg

_LARGEST_DECOMPOSITION = 5000


def convert(arrays, target, symmetric):
    """Arrays for the target's variables that mean the same matrix.

    Args:
        arrays: dict of saved arrays by name.
        target: a `MatrixStorage`.
        symmetric: the matrix is symmetric.

    Returns:
        dict of arrays by the target's names.

    Raises:
        ValueError: the matrix cannot be written in that form.
    """
    if _rows_of(arrays) != target.n:
        return arrays  # of another model, which whoever compares shapes will say
    source = _storage_of({name: tf.constant(array) for name, array in arrays.items()}, target.n, symmetric)
    if isinstance(target, Panels):
        return _panels(source, target)
    history = _product_history if isinstance(target, StoredProduct) else _sum_history
    if target.panels is None:
        numbers = history(target, source)
    elif target.when_full == "apply" or not _is_short_history(source, target):
        numbers = {"times_full": 1} | _panels(source, target.panels) | history(target, None)
    else:
        absent = {name: np.zeros([0, width]) for name, width in target.panels.widths().items()}
        numbers = absent | history(target, source)
    numbers = {"times_full": 0, "scale": 1.0} | numbers
    return {name: np.asarray(array) for name, array in numbers.items()}


def _is_short_history(source, target):
    """The source is nothing but changes of the target's kind, and there is room for them."""
    return (
        type(source) is type(target) and source.panels is None and int(source.history.rank) <= target.history.capacity
    )


def _rows_of(arrays):
    for name in ("left", "directions"):
        if name in arrays:
            return arrays[name].shape[-1]
    return sum(len(array) for name, array in arrays.items() if name.startswith("panel_"))


def _storage_of(arrays, n, symmetric):
    """The storage that was saved, of tensors."""
    names = sorted((name for name in arrays if name.startswith("panel_")), key=lambda name: (len(name), name))
    parts = tuple(arrays[name] for name in names)
    present = bool(parts) and len(parts[0]) > 0
    panels = Panels(parts, n, symmetric) if present else None
    if "rank" not in arrays:
        return panels
    when_full = "apply" if present else "restart"
    common = (n, panels, when_full, tf.constant(0), arrays["scale"])
    if "triangles" in arrays:
        product = DilationProduct(
            arrays["directions"], arrays["triangles"], arrays["rank"], len(arrays["triangles"]) * GROUP
        )
        return StoredProduct(*common, product)
    left = Rows(arrays["left"])
    right = Rows(arrays["right"]) if "right" in arrays else left
    terms = RankOneSum(left, right, arrays["coefficients"], arrays["rank"], len(arrays["coefficients"]))
    return StoredSum(*common, terms, arrays["diagonal"])


def _panels(source, panels):
    return {name: rows.numpy() for name, rows in panels.filled_with(source.transposed_product)}


def _sum_history(target, source):
    """Arrays of a sum's history and its diagonal: those of the source, or none."""
    n, one_side = target.n, target.history.right is target.history.left
    if source is None:
        diagonal, left, right, c = 0.0, np.zeros([0, n]), np.zeros([0, n]), np.zeros([0])
    elif isinstance(source, StoredSum) and source.panels is None:
        rank, terms = int(source.history.rank), source.history
        diagonal, left, right = source.diagonal, terms.left.whole[:rank], terms.right.whole[:rank]
        c = terms.coefficients[:rank]
    else:
        diagonal, left, right, c = _decomposed(source, one_side)
    room = max(len(c), target.history.coefficients.shape[0] or 0)
    if target.history.capacity is not None and len(c) > target.history.capacity:
        raise ValueError(
            f"the saved matrix has rank {len(c)} beside a multiple of the identity, this storage a capacity of "
            f"{target.history.capacity}; ask for more, for 'factored' without a capacity, or for 'dense'"
        )
    pad = room - len(c)
    arrays = {"left": _padded(left, pad), "coefficients": _padded(c, pad), "rank": len(c)}
    if target.history.grows:
        arrays["room"] = room
    return arrays | {"diagonal": diagonal} | ({} if one_side else {"right": _padded(right, pad)})


def _product_history(target, source):
    groups = target.history.triangles.shape[0] or 1
    if source is None:
        directions, triangles, rank = np.zeros([0, GROUP, target.n]), np.zeros([0, GROUP, GROUP]), 0
    elif isinstance(source, StoredProduct) and source.panels is None:
        directions, triangles, rank = source.history.directions, source.history.triangles, int(source.history.rank)
    else:
        raise ValueError(
            "a matrix saved as n x n numbers cannot be written as a product of dilations; load it with storage='dense'"
        )
    used = -(-rank // GROUP)
    if target.history.capacity is not None and rank > target.history.capacity:
        raise ValueError(
            f"the saved matrix has {rank} dilations, this storage a capacity of {target.history.capacity}; ask for "
            "more, for 'factored' without a capacity, or for 'dense'"
        )
    pad = max(groups, used) - used
    arrays = {"directions": _padded(directions[:used], pad), "triangles": _padded(triangles[:used], pad)}
    if target.history.grows:
        arrays["room"] = GROUP * (used + pad)
    return arrays | {"rank": rank} | ({} if source is None else {"scale": float(source.scale)})


def _decomposed(source, symmetric):
    """(d, U, V, c) with d I + U' diag(c) V = the matrix, of the lowest rank."""
    if source.n > _LARGEST_DECOMPOSITION:
        raise ValueError(
            f"a matrix of {source.n:,} rows saved as n x n numbers is too large to be written as terms again; "
            "load it with storage='dense'"
        )
    matrix = np.asarray(source.product(tf.eye(source.n, dtype=source.dtype)), np.float64)
    if symmetric:
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        diagonal = np.median(values)
        values = values - diagonal
        kept = np.abs(values) > _rounding(source) * np.abs(values).max(initial=0)
        return diagonal, vectors.T[kept], vectors.T[kept], values[kept]
    diagonal = np.median(np.diag(matrix))
    u, values, v = np.linalg.svd(matrix - diagonal * np.eye(source.n))
    kept = values > _rounding(source) * values.max(initial=0)
    return diagonal, u.T[kept], v[kept], values[kept]


def _rounding(source):
    return source.n * linalg.eps(source.dtype)


def _padded(rows, more):
    rows = np.asarray(rows)
    return np.concatenate([rows, np.zeros([more, *rows.shape[1:]], rows.dtype)])
