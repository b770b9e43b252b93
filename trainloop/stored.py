"""What a state may hold besides tensors: large values that only describe their change until a step is taken."""

import abc


class StoredValue(abc.ABC):
    """A value that is too large to be returned anew by every `update`.

    Its operations return new values that refer to the same stored numbers and describe what is different. The
    optimizer base carries the change out, in place, when the step is accepted. A rejected step costs nothing.
    """

    @abc.abstractmethod
    def as_variables(self, make_variable):
        """A value equal to this one whose stored numbers are variables, so that it can be committed to.

        Args:
            make_variable: function of (name, initial value, whether its first dimension grows) returning a
                variable.
        """

    @abc.abstractmethod
    def describes_change_of(self, other):
        """True when this value was derived from `other` by operations, so that it can be committed over it."""

    @abc.abstractmethod
    def commit(self):
        """Carry the described change out in the stored variables, in place."""

    def wholes(self):
        """`WholeArray`s by name, to be saved instead of their pieces: arrays of which other processes have some."""
        return {}

    def converted(self, arrays):
        """Saved arrays of such a value in another form, as arrays by this one's names.

        Args:
            arrays: dict of arrays, by the names that `as_variables` gave when they were saved.

        Raises:
            ValueError: they cannot be this value's.
        """
        raise ValueError(f"a {type(self).__name__} cannot be made of {', '.join(sorted(arrays))}")

    def failures(self):
        """Pairs (bool [], `Status`) under which the change cannot be committed."""
        return []

    def scalars(self):
        """What is worth logging about this value: dict of tensors []."""
        return {}

    @property
    def workspace(self):
        """Bytes that `commit` may take for a moment, beyond a few vectors."""
        return 0

    def notes(self):
        """Sentences for the memory plan: how the value is stored, and why."""
        return ()

    def alternatives(self):
        """Pairs (storage word, bytes) of other ways to store the value."""
        return ()
