"""Several outputs of a model: what belongs to which of them, as `model.compile` and `model.fit` understand it.

Outputs, targets, losses, weights and metrics come as lists and dicts, nested in any way. Here each becomes a flat list
in the order of `tf.nest.flatten(outputs)`:

    outputs             what is given                           what belongs to an output
    dict                dict with the same keys                 the value under its key
    list                list of the same length                 the value at its place
    list                dict with the model's output names      the value under its name
    dict                list with one entry per output          in the order of the sorted keys

An output without a loss has None there. A dict that lacks a key, or has another one, is an error.
"""

from collections.abc import Mapping

import tensorflow as tf


class Outputs:
    """What is known of a model's outputs before it runs.

    Args:
        structure: nested, with anything for leaves; None where nothing is known.
        names: of the leaves in their order, as Keras has them; None where there are none.
    """

    def __init__(self, structure=None, names=None):
        self.structure, self.names = structure, None if names is None else list(names)

    @classmethod
    def of(cls, model, like=None):
        """Of a model. Only functional ones have a structure of their own.

        Args:
            model: a Keras model.
            like: what has an entry for each output, the losses for instance; None if nothing has.
        """
        names = getattr(model, "output_names", None)
        structure = getattr(model, "output", None) if names else None
        if structure is None:  # Sequential models have a list, of one
            known = getattr(model, "outputs", None)
            structure = known[0] if known and len(known) == 1 else None
        return cls(like if structure is None and is_nested(like) else structure, names)

    def align(self, given, like, what, optional=None):
        """`align` with the names of the outputs."""
        return align(given, like, what, self.names, optional)

    def weights(self, given, like, optional):
        """The sample weights of each output, a flat list as of `align`; where they are not nested, those for all.

        Args:
            given: nested, or a tensor, or None for no weights.
            like, optional: see `align`.
        """
        if is_nested(given):
            return self.align(given, like, "sample_weight", optional)
        return [given] * len(tf.nest.flatten(like))

    def metric_names(self, like):
        """What stands in front of the metrics of each output, None for nothing.

        Args:
            like: the outputs, or something of their structure.
        """
        count = len(tf.nest.flatten(like))
        if count == 1:
            return [None]
        if isinstance(like, Mapping) and len(like) == count:
            return sorted(like)
        return self._names(count)

    def loss_names(self, like):
        """What stands in front of the loss of each output, None for the name of the loss."""
        names, paths = self._names(len(tf.nest.flatten(like))), paths_of(like)
        return [_joined(path, name) for path, name in zip(paths, names, strict=True)]

    def _names(self, count):
        return self.names if self.names is not None and len(self.names) == count else [None] * count


def is_nested(value):
    """Whether it is a list, a tuple or a dict."""
    return isinstance(value, (list, tuple, Mapping))


def paths_of(structure):
    """The keys and indices that lead to each leaf, in the order of `tf.nest.flatten`."""
    if not is_nested(structure):
        return [()]
    return [(key, *path) for key, child in _children(structure) for path in paths_of(child)]


def align(given, like, what, names=None, optional=None):
    """What is given for each output: a flat list in the order of `tf.nest.flatten(like)`.

    Args:
        given: nested; what stands where `like` has a leaf may be nested itself.
        like: the outputs, or something of their structure.
        what: what `given` is called, for messages.
        names: of the outputs, in their order, or None.
        optional: for each output whether it may be missing, None for nowhere. There the list has None.

    Raises:
        ValueError: names the keys that are missing or unknown, or the lengths.
    """
    count = len(tf.nest.flatten(like))
    names = [None] * count if names is None or len(names) != count else names
    optional = [False] * count if optional is None else optional
    if count == 1:
        return [_only(given, paths_of(like)[0], what, names[0])]
    return _align(given, like, what, names, optional)


def joined(predictions):
    """The floating outputs end to end as one tensor, as Gauss-Newton products need them, and the way back.

    Args:
        predictions: nested structure of tensors. A single floating one stays as it is.

    Returns:
        (z, function of a tensor like z -> the structure). Outputs that are not floating are put back as they were.
    """
    flat = tf.nest.flatten(predictions)
    if len(flat) == 1:
        return flat[0], lambda z: tf.nest.pack_sequence_as(predictions, [z])
    moving = [i for i, tensor in enumerate(flat) if tensor.dtype.is_floating]
    dtype = max((flat[i].dtype for i in moving), key=lambda dtype: dtype.size)
    shapes = [tf.shape(flat[i]) for i in moving]
    sizes = [tf.reduce_prod(shape) for shape in shapes]

    def apart(z):
        tensors = list(flat)
        for i, shape, piece in zip(moving, shapes, tf.split(z, sizes), strict=True):
            tensors[i] = tf.ensure_shape(tf.cast(tf.reshape(piece, shape), flat[i].dtype), flat[i].shape)
        return tf.nest.pack_sequence_as(predictions, tensors)

    return tf.concat([tf.reshape(tf.cast(flat[i], dtype), [-1]) for i in moving], 0), apart


def _align(given, like, what, names, optional):
    if not is_nested(like):
        return [given]
    children = _children(like)
    if isinstance(given, Mapping):
        parts = _by_key(given, like, what, names, optional)
    elif given is None and all(optional):
        return [None] * len(optional)
    elif not isinstance(given, (list, tuple)):
        raise ValueError(f"{what} must have an entry for each output, {_described(like)}; received one")
    elif len(given) == len(children) and (len(children) == len(optional) or not isinstance(like, Mapping)):
        parts = given
    else:
        return _by_leaf(given, like, what, optional)
    aligned, at = [], 0
    for part, (_, child) in zip(parts, children, strict=True):
        here = slice(at, at + len(tf.nest.flatten(child)))
        aligned += _align(part, child, what, names[here], optional[here])
        at = here.stop
    return aligned


def _by_key(given, like, what, names, optional):
    """The entries of a dict, one for each child of `like`; None for one that may be missing."""
    children = _children(like)
    if isinstance(like, Mapping):
        keys = [key for key, _ in children]
    elif len(children) == len(names) and None not in names:
        keys = names
    else:
        raise ValueError(f"{what} must be a list like the outputs, {_described(like)}; received a dict")
    at, needed = 0, []
    for key, (_, child) in zip(keys, children, strict=True):
        size = len(tf.nest.flatten(child))
        needed += [] if all(optional[at : at + size]) else [key]
        at += size
    missing, unknown = [key for key in needed if key not in given], [key for key in given if key not in keys]
    if missing or unknown:
        faults = [f"without {_listed(missing)}"] * bool(missing) + [f"with {_listed(unknown)}"] * bool(unknown)
        advice = "; None stands for an output without a loss" if what == "loss" else ""
        raise ValueError(f"{what} must have the keys {_listed(keys)}, received one {' and '.join(faults)}{advice}")
    return [given.get(key) for key in keys]


def _by_leaf(given, like, what, optional):
    """The entries of a list that has one for each leaf of `like`, or for each leaf that must not be missing."""
    if len(given) == len(optional) and not any(map(is_nested, given)):
        return list(given)
    if len(given) != optional.count(False):
        raise ValueError(f"{what} must have an entry for each output, {_described(like)}; received {len(given)}")
    entries = iter(given)
    return [None if missing else next(entries) for missing in optional]


def _only(given, path, what, name):
    """What is given for the only output there is: itself, or the one entry of a list or dict."""
    if isinstance(given, Mapping):
        keys = [key for key in (*path, name) if key is not None]
        if len(given) != 1 or (keys and next(iter(given)) not in keys):
            expected = f"the one key {keys[0]!r}" if keys else "one key"
            raise ValueError(f"{what} must have {expected} for the one output, received {_listed(given)}")
        return next(iter(given.values()))
    return given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given


def _children(structure):
    """(key, child) in the order of `tf.nest.flatten`."""
    if isinstance(structure, Mapping):
        return [(key, structure[key]) for key in sorted(structure)]
    return list(enumerate(structure))


def _joined(path, name):
    """Keras's name of an output: its path, where a place in a list gives way to the name of the layer."""
    if name is not None and (not path or isinstance(path[-1], int)):
        path = (*path[:-1], name)
    elif path and isinstance(path[-1], int):
        path = path[:-1] if len(path) == 1 else path
    return "/".join(map(str, path)) or None


def _described(structure):
    names = ["/".join(map(str, path)) for path in paths_of(structure)]
    return f"of which there are {len(names)} ({_listed(names)})"


def _listed(keys):
    return ", ".join(repr(key) for key in keys)
