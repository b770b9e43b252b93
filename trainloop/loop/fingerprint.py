"""All that a Python function reads, as a value: two functions of equal fingerprints are traced to the same graph.

A compiled function keeps what its Python function read while it was traced: closures, global names, defaults. What is
compiled may be used again only where all of that is as it was. So a function is known by its code and, one by one, by
what the names in it stand for. Functions that it calls are looked into as well, TensorFlow, Keras, NumPy and the
standard library are not. A `tf.Module` is its class and its attributes. Whatever may change unseen (another instance of
a user's class, a Keras model) has no fingerprint.
"""

import functools
import hashlib
import types

import keras
import numpy as np
import tensorflow as tf

from trainloop.objectives.closure import ClosureObjective
from trainloop.objectives.function import FunctionObjective, LeastSquares
from trainloop.vectors.layout import native

# Their functions do what they do, whatever their globals hold.
_FIXED = {
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "trainloop",
    "builtins",
    "math",
    "functools",
    "operator",
    "itertools",
}

# Objectives that are nothing but a function, and where they have it; in the other attribute nothing is read.
_OF_FUNCTIONS = {FunctionObjective: ("_fun", "_known_to_stop"), LeastSquares: ("_residuals", "_f")}

# How the attributes of a `tf.Module` begin that say nothing of what it computes.
_BOOKKEEPING = ("_self_", "_name_scope")

# The same of classes.
_OF_PYTHON = ("__", "_abc_", "_TF_MODULE_")

# A walk that is longer takes as much time as it saves.
_MOST_OBJECTS = 10_000

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype, tf.DType)


class NoFingerprintError(Exception):
    """Something has no fingerprint."""


class Fingerprint:
    """A walk through what is read.

    Attributes:
        nbytes: of the arrays, tensors and variables met, which a graph holds.
        kept: what is known by its identity, so it has to live as long as the fingerprint is in use.
    """

    def __init__(self):
        self.nbytes, self.kept = 0, []
        self._open = []  # what is being looked into; met again inside, it stands for itself
        self._count = 0

    def of(self, value):
        """The fingerprint of anything, hashable.

        Raises:
            NoFingerprintError: there is none.
        """
        if isinstance(value, _PLAIN):
            return type(value), repr(value)
        if any(value is other for other in self._open):
            return "again", [value is other for other in self._open].index(True)
        self._count += 1
        if self._count > _MOST_OBJECTS:
            raise NoFingerprintError
        self._open.append(value)
        try:
            return self._of_object(value)
        finally:
            self._open.pop()

    def _of_object(self, value):
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.MethodType):
            return "method", self.of(value.__func__), self.of(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", self.of(value.func), self.of(value.args), self.of(value.keywords)
        if isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType, np.ufunc)):
            return self._of_named(value)
        if isinstance(value, (list, tuple, dict)):
            return self._of_container(value)
        if isinstance(value, (np.ndarray, tf.Tensor, tf.Variable, keras.Variable)):
            return self._of_numbers(native(value))
        if isinstance(value, keras.optimizers.schedules.LearningRateSchedule) and _is_fixed(type(value)):
            return type(value), self.of(value.get_config())
        if type(value) in _OF_FUNCTIONS and tuple(vars(value)) == _OF_FUNCTIONS[type(value)]:
            return type(value), self.of(getattr(value, _OF_FUNCTIONS[type(value)][0]))
        # What a closure writes besides, its graph begins with as it was when that was made.
        if type(value) is ClosureObjective and not value.written:
            return type(value), self.of(value.definition)
        if isinstance(value, tf.Module):
            return self._of_module(value)
        if hasattr(value, "python_function") and _is_fixed(type(value)):
            self.kept.append(value)
            return "tf.function", id(value), self.of(value.python_function)
        raise NoFingerprintError

    def _of_function(self, function):
        if function.__globals__.get("__name__", "").partition(".")[0] in _FIXED:
            return function.__code__, self._of_cells(function), self.of(function.__defaults__)
        names = _names(function.__code__)
        read = [(name, self.of(function.__globals__[name])) for name in names if name in function.__globals__]
        attributes = [self.of(part) for part in (function.__defaults__, function.__kwdefaults__)]
        attributes += [(name, self.of(value)) for name, value in vars(function).items()]
        return function.__code__, self._of_cells(function), tuple(attributes), tuple(read)

    def _of_cells(self, function):
        try:
            return tuple(self.of(cell.cell_contents) for cell in function.__closure__ or ())
        except ValueError as error:  # an empty cell
            raise NoFingerprintError from error

    def _of_named(self, value):
        if _is_fixed(value):
            return id(value), getattr(value, "__name__", "")
        if isinstance(value, type):
            return self._of_class(value)
        if not isinstance(value, types.ModuleType):
            raise NoFingerprintError
        # Of its attributes those that the code names which is being looked into.
        codes = [other.__code__ for other in self._open if isinstance(other, types.FunctionType)]
        names = sorted({name for code in codes for name in _names(code)})
        read = [(name, self.of(getattr(value, name))) for name in names if hasattr(value, name)]
        return value.__name__, tuple(read)

    def _of_class(self, cls):
        """What its methods read, its bases included; not what its instances hold."""
        own = [(name, getattr(part, "__func__", getattr(part, "fget", part))) for name, part in vars(cls).items()]
        read = [(name, self.of(part)) for name, part in own if callable(part) or not name.startswith(_OF_PYTHON)]
        self.kept.append(cls)
        return id(cls), tuple(read), tuple(self.of(base) for base in cls.__bases__)

    def _of_module(self, module):
        """Its class, and its attributes besides what TensorFlow notes there of all of them."""
        self.kept.append(module)
        read = [(name, self.of(part)) for name, part in vars(module).items() if not name.startswith(_BOOKKEEPING)]
        return id(module), self.of(type(module)), tuple(read)

    def _of_container(self, value):
        if type(value) not in (list, tuple, dict):
            raise NoFingerprintError
        entries = [entry for pair in value.items() for entry in pair] if isinstance(value, dict) else value
        # Code that runs in Python (tf.numpy_function) would write into the container that its first trace had.
        is_read_by_code = any(isinstance(other, types.FunctionType) for other in self._open)
        place = id(value) if is_read_by_code and not isinstance(value, tuple) else None
        return type(value), place, tuple(self.of(entry) for entry in entries)

    def _of_numbers(self, value):
        if isinstance(value, tf.Variable):
            # An operation to count the elements would take longer than the rest of the walk.
            length = value.shape.num_elements()
            self.nbytes += value.dtype.size * (int(tf.size(value, tf.int64)) if length is None else length)
            self.kept.append(value)
            return "variable", id(value.handle)  # read whenever the graph runs
        if not isinstance(value, np.ndarray):
            if not hasattr(value, "numpy"):
                raise NoFingerprintError  # a symbol of a graph that is being made
            self.nbytes += value.shape.num_elements() * value.dtype.size
            self.kept.append(value)
            return "tensor", id(value)
        if value.dtype.hasobject:
            raise NoFingerprintError
        self.nbytes += value.nbytes
        digest = hashlib.blake2b(np.ascontiguousarray(value)).digest()
        return "array", id(value), value.dtype.str, value.shape, digest


def _is_fixed(value):
    """Whether it belongs to a library whose code does not change in a run."""
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return (name or "builtins").partition(".")[0] in _FIXED


def _names(code):
    """Names of globals and attributes in a code object and in those inside of it."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)]
    return sorted({*code.co_names, *inner})
