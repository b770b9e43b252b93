"""The state of an optimizer: a nested dict of tensors and stored values, seen as a flat one, kept in variables.

    {"velocity": v, "moments": {"first": m}}   <->   {"velocity": v, "moments/first": m}

The paths are the names under which scalars are logged and arrays are saved, so they appear in error messages too.
`Memory` keeps a flat state in variables: made, read, written, saved and restored in one place. Tensors are replaced as
a whole at each step, stored values carry out the change that they describe.
"""

import keras
import tensorflow as tf

from trainloop.matrices.stored_value import StoredValue

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
            reset = "; for the identity again return that matrix after .reset()" if hasattr(old, "reset") else ""
            raise ValueError(
                f"{where} must be derived from the {type(old).__name__} received, by its own operations; "
                f"got {new!r}{reset}"
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


def have_values(variables):
    """Whether variables have values by now: those that are made while a function is traced get them after it.

    Args:
        variables: Keras variables or `tf.Variable`s.
    """
    if tf.executing_eagerly():
        return True
    native = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    with tf.init_scope():
        return all(bool(v.is_initialized()) for v in native)


class Memory:
    """Variables for the leaves of a state.

    A class of its own also because Keras and TensorFlow would adopt containers of variables that they find among the
    attributes of an optimizer.

    A model without an Input is built while `model.fit` traces its first step. Then x has no value from which the first
    state could be computed, and the state is *late*. It gets its first values at the next trace, which TensorFlow makes
    as soon as the variables have theirs, before anything runs. Where that one does not come (a function inside of a
    function is not traced twice), or x has no value even then (it is computed from the batch), the first trace runs;
    so there a step computes the first state itself, if there was none before.

    Attributes:
        variables: the variables by the name under which they are saved, "state/" and the path; a `WholeArray` for an
            array of which other processes have pieces too.
    """

    def __init__(self):
        self.variables = {}
        self._leaves = {}  # path -> variable, or stored value of variables
        self._made = {}  # path -> variable, for every array of this process, however it is saved
        self._late = None  # bool [], a variable: whether the state has yet to get its first values

    def create(self, leaves, add_variable, of_x=True):
        """Make variables.

        Args:
            leaves: dict of first values by path.
            add_variable: of a Keras optimizer.
            of_x: False when the leaves have the right shapes and dtypes, but not the values, because x has none yet.
        """
        self._late = None if of_x else tf.Variable(True, trainable=False, name="late")
        for path, leaf in leaves.items():
            if isinstance(leaf, StoredValue):
                self._leaves[path] = leaf = leaf.as_variables(
                    lambda name, value, grows, path=path: self._make(f"{path}/{name}", value, grows, add_variable)
                )
                self._save_instead_of_pieces({f"state/{path}/{name}": a for name, a in leaf.wholes().items()})
            else:
                self._leaves[path] = self._make(path, leaf, False, add_variable)

    def _make(self, path, value, grows, add_variable):
        name = path.replace("/", "_")
        # What is made only when it is called for exists once.
        initial = value if callable(value) else lambda: value
        if grows:  # Keras variables have a fixed shape
            variable = tf.Variable(initial(), shape=[None, *value.shape[1:]], trainable=False, name=name)
        else:
            variable = add_variable(
                value.shape, lambda shape, dtype: initial(), dtype=tf.as_dtype(value.dtype).name, name=name
            ).value
        self.variables[f"state/{path}"] = self._made[path] = variable
        return variable

    def _save_instead_of_pieces(self, wholes):
        pieces = {id(variable) for whole in wholes.values() for _, variable in whole.pieces}
        kept = {name: variable for name, variable in self.variables.items() if id(variable) not in pieces}
        self.variables = kept | wholes

    def restart(self, first):
        """Write first values over those that are there.

        Args:
            first: leaves by path, as `create` got them.
        """

        def written(path, value):
            self._made[path].assign(value() if callable(value) else value)
            return self._made[path]

        for path, leaf in first.items():
            if isinstance(leaf, StoredValue):
                leaf.as_variables(lambda name, value, grows, path=path: written(f"{path}/{name}", value))
            else:
                written(path, leaf)

    @property
    def nbytes(self):
        """Bytes of the variables, as large as they are now."""
        return sum(_length(v) * v.dtype.size for v in self._made.values())

    @property
    def grows(self):
        """True when a variable has no fixed shape."""
        return any(None in variable.shape for variable in self.variables.values())

    def read(self):
        """The leaves as they are now: tensors and stored values by path."""
        leaves = self._leaves.items()
        return {path: leaf if isinstance(leaf, StoredValue) else tf.convert_to_tensor(leaf) for path, leaf in leaves}

    def is_late(self):
        """Whether the first values are missing as far as is known before a function runs: a Python bool."""
        if self._late is None:
            return False
        with tf.init_scope():
            return bool(self._late)

    def begin(self, first):
        """Write first values into a state that is late; nothing where it is not.

        Args:
            first: leaves by path; stored values do not depend on x and are right. Empty for a state that was restored.
        """
        if self.is_late():
            for path, leaf in _tensors(first).items():
                self._leaves[path].assign(leaf)
            self._late.assign(False)

    def read_or(self, first):
        """The leaves of a state that is late, as they are when a function runs: the first ones, if it still is then."""
        chosen = {path: tf.where(self._late, leaf, self._leaves[path]) for path, leaf in _tensors(first).items()}
        return {**self.read(), **chosen}

    def converted(self, saved):
        """Saved arrays by name, where stored values that were saved in another form are in the form they have here.

        Raises:
            ValueError: a stored value cannot be written in its form here.
        """
        for path, leaf in self._leaves.items():
            if isinstance(leaf, StoredValue):
                prefix = f"state/{path}/"
                there = {name.removeprefix(prefix): saved[name] for name in saved if name.startswith(prefix)}
                here = {name: v for name, v in self.variables.items() if name.startswith(prefix)}
                if there and not _fits({prefix + name: array for name, array in there.items()}, here):
                    rest = {name: array for name, array in saved.items() if not name.startswith(prefix)}
                    saved = rest | {prefix + name: array for name, array in leaf.converted(there).items()}
        return saved

    def commit(self, taken, leaves):
        """Write the leaves: tensors as they are, stored values where the step is taken.

        Args:
            taken: bool [].
            leaves: by path.
        """
        stored = [leaf for leaf in leaves.values() if isinstance(leaf, StoredValue)]
        tensors = _tensors(leaves)
        for path, leaf in tensors.items():
            self._leaves[path].assign(leaf)
        if self.is_late():
            self._late.assign(False)
        if stored:
            # Whatever still reads a stored value comes first: a buffer in use is copied instead of written in place.
            with tf.control_dependencies(list(tensors.values())):
                tf.cond(taken, lambda: _commit_all(stored), lambda: tf.no_op())


def load_state(owner, variables, saved):
    """Assign saved values to variables, all of them or none.

    Args:
        owner: name of the optimizer's class, for messages.
        variables: dict by name.
        saved: dict of arrays by name.

    Raises:
        ValueError: other names, or another shape.
    """
    if saved.keys() != variables.keys():
        raise ValueError(
            f"the saved state is another optimizer's: {owner} has {sorted(variables)}, the file has {sorted(saved)}"
        )
    for name, variable in variables.items():
        if not tf.TensorShape(variable.shape).is_compatible_with(saved[name].shape):
            raise ValueError(f"saved {name} has shape {saved[name].shape}, this optimizer needs {variable.shape}")
    for name, variable in variables.items():
        variable.assign(saved[name])


def _length(variable):
    """The number of elements; an operation counts them only where the shape does not say."""
    known = variable.shape.num_elements()
    return int(tf.size(variable, tf.int64)) if known is None else known


def _tensors(leaves):
    return {path: leaf for path, leaf in leaves.items() if not isinstance(leaf, StoredValue)}


def _fits(saved, variables):
    return saved.keys() == variables.keys() and all(
        tf.TensorShape(variable.shape).is_compatible_with(saved[name].shape) for name, variable in variables.items()
    )


def _commit_all(values):
    for value in values:
        value.commit()
    return tf.no_op()
