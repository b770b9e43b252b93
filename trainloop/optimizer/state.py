"""What a method remembers between steps: a nested dict of tensors and stored values, seen as a flat one.

    {"velocity": v, "moments": {"first": m}}   <->   {"velocity": v, "moments/first": m}

The paths are the names under which scalars are logged and arrays are saved, so they appear in error messages
too.
"""

import tensorflow as tf

from trainloop.stored import StoredValue

# Names that the log of a step uses for itself, in memory and in a file.
RESERVED = ("step", "epoch", "samples", "loss", "grad_norm", "kind")


def flatten(state, prefix="", where="a state"):
    """Leaves of a nested dict by path.

    Args:
        state: nested dict.
        prefix: of the paths.
        where: what to call the state in a message.

    Raises:
        ValueError: not a dict, or a key that is not a string, is empty, contains "/" or "." or is a name
            the log uses itself, or an inner dict without a leaf.
    """
    if not isinstance(state, dict):
        raise ValueError(
            f"{where} must be a (nested) dict, received {type(state).__name__}; wrap it as {{'name': value}}"
        )
    leaves = {}
    for key, value in state.items():
        if not isinstance(key, str) or not key or set("/.") & set(key) or prefix + key in RESERVED:
            raise ValueError(
                f"a state key must be a non-empty string without '/' or '.' and none of {', '.join(RESERVED)}; "
                f"received {prefix + str(key)!r}"
            )
        if isinstance(value, dict):
            if not value:
                raise ValueError(
                    f"{where} must not hold an empty dict, received one under {prefix + key!r}; leave it out"
                )
            leaves.update(flatten(value, f"{prefix}{key}/", where))
        else:
            leaves[prefix + key] = value
    return leaves


def unflatten(leaves):
    """The inverse of `flatten`."""
    state = {}
    for path, value in leaves.items():
        *parents, key = path.split("/")
        node = state
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return state


def as_tensors(leaves, like):
    """Initial leaves with Python numbers turned into tensors; floats take the dtype of x.

    Args:
        leaves: dict of paths.
        like: x, [n].
    """

    def convert(value):
        if isinstance(value, StoredValue):
            return value
        return tf.convert_to_tensor(value, like.dtype) if isinstance(value, float) else tf.convert_to_tensor(value)

    return {path: convert(value) for path, value in leaves.items()}


def check_update(method, old, new):
    """New leaves, converted to tensors, after checking that an update kept the structure.

    Args:
        method: name of the algorithm, for messages.
        old: dict of paths before.
        new: nested dict after.

    Raises:
        ValueError: a key is missing or added, or a leaf changed its shape, dtype or kind.
    """
    new = flatten(new, where=f"the state that {method}.update returns")
    if old.keys() != new.keys():
        raise ValueError(
            f"{method}.update must return the keys that init_state made: expected {sorted(old)}, received {sorted(new)}"
        )
    return {path: _check_leaf(f"{method}.update: state {path!r}", old[path], new[path]) for path in old}


def _check_leaf(where, old, new):
    if isinstance(old, StoredValue):
        if not isinstance(new, type(old)) or not new.describes_change_of(old):
            raise ValueError(
                f"{where} must be derived from the {type(old).__name__} received, by its own operations; got {new!r}"
            )
        return new
    return check_tensor(where, old, new)


def check_tensor(where, old, new):
    """`new` as a tensor of exactly the shape and dtype of `old`; plain Python numbers are converted.

    Raises:
        ValueError: names both.
    """
    try:
        new = tf.convert_to_tensor(new, old.dtype if isinstance(new, (int, float)) else None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} must be a tensor of {_kind(old)}, received {new!r}: {error}") from error
    if new.dtype != old.dtype or not new.shape.is_compatible_with(old.shape):
        raise ValueError(f"{where} must keep {_kind(old)}, received {_kind(new)}")
    return new


def _kind(tensor):
    return f"shape {tensor.shape} and dtype {tf.as_dtype(tensor.dtype).name}"


def scalars(leaves):
    """What is logged at every step: the leaves that are tensors of rank 0, and what stored values tell."""
    logged = {}
    for path, leaf in leaves.items():
        if isinstance(leaf, StoredValue):
            logged |= {f"{path}/{name}": tensor for name, tensor in leaf.scalars().items()}
        elif leaf.shape.rank == 0:
            logged[path] = leaf
    return logged


def holds_stored_values(state):
    """Whether a nested dict has leaves that are not plain tensors."""
    return any(isinstance(leaf, StoredValue) for leaf in flatten(state).values())


def failures(leaves):
    """(condition [], `Status`) of the stored values whose change may not be possible."""
    return [failure for leaf in leaves.values() if isinstance(leaf, StoredValue) for failure in leaf.failures()]
