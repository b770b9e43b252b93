"""The state of a built method, kept in variables: made, read, written, saved and restored in one place.

A state is a nested dict of tensors and stored values; here it is flat, by path (see `state`). Tensors are replaced as a
whole at each step, stored values carry out the change that they describe.
"""

import tensorflow as tf

from trainloop.stored import StoredValue


class Memory:
    """Variables for the leaves of a state.

    A class of its own also because Keras and TensorFlow would adopt containers of variables that they find among the
    attributes of an optimizer.

    Attributes:
        variables: the variables by the name under which they are saved, "state/" and the path; a `WholeArray` for an
            array of which other processes have pieces too.
    """

    def __init__(self):
        self.variables = {}
        self._leaves = {}  # path -> variable, or stored value of variables

    def create(self, leaves, add_variable):
        """Make variables.

        Args:
            leaves: dict of first values by path.
            add_variable: of a Keras optimizer.
        """
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
        self.variables[f"state/{path}"] = variable
        return variable

    def _save_instead_of_pieces(self, wholes):
        pieces = {id(variable) for whole in wholes.values() for _, variable in whole.pieces}
        kept = {name: variable for name, variable in self.variables.items() if id(variable) not in pieces}
        self.variables = kept | wholes

    @property
    def grows(self):
        """True when a variable has no fixed shape."""
        return any(None in variable.shape for variable in self.variables.values())

    def read(self):
        """The leaves as they are now: tensors and stored values by path."""
        leaves = self._leaves.items()
        return {path: leaf if isinstance(leaf, StoredValue) else tf.convert_to_tensor(leaf) for path, leaf in leaves}

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
        tensors = {path: leaf for path, leaf in leaves.items() if not isinstance(leaf, StoredValue)}
        for path, leaf in tensors.items():
            self._leaves[path].assign(leaf)
        if stored:
            # Whatever still reads a stored value comes first: a buffer in use is copied instead of written in place.
            with tf.control_dependencies(list(tensors.values())):
                tf.cond(taken, lambda: _commit_all(stored), lambda: tf.no_op())


def restore(owner, variables, saved):
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


def _fits(saved, variables):
    return saved.keys() == variables.keys() and all(
        tf.TensorShape(variable.shape).is_compatible_with(saved[name].shape) for name, variable in variables.items()
    )


def _commit_all(values):
    for value in values:
        value.commit()
    return tf.no_op()
