"""The whole model as one vector: which weight sits where in x, and the way there and back.

    x = [ w_1 | w_2 | ... | w_k ]        w_i = the i-th trainable variable, flattened row by row

`FlatLayout` is the plan: names, shapes and offsets, no tensors. `VariableVector` applies it to variables that exist.
Neither knows anything of optimizers, so both can serve a loop that has nothing else to do with this package:

    vector = VariableVector(model.trainable_variables)
    x = vector.read()                                       # [n]
    g = vector.layout.pack(tape.gradient(loss, vector.variables))  # [n]
    vector.assign(x - 0.1 * g)

Packing copies. An aliased flat storage would save the copy, but frozen layers, shared weights and mixed
dtypes all break aliasing.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainloop.types import Variable
from trainloop.vectors import xla

# Pieces of about this many numbers take longer to copy than to ask for one by one.
_LONG_PIECE = 2**14


@dataclasses.dataclass(frozen=True)
class FlatLayout:
    """Where each of k tensors lies in a vector of length n.

    Args:
        names: k distinct strings.
        shapes: k fully known shapes. Scalars `()` take one place, empty shapes such as `(0, 3)` none.
        dtype: the dtype of the vector, e.g. "float32". Packed tensors of other dtypes are cast to it.

    Raises:
        ValueError: names and shapes differ in number, a name occurs twice, a shape is not fully known, the
            dtype is not a real floating type.

    Examples:
        >>> layout = FlatLayout(("kernel", "bias"), ((2, 3), (3,)), "float32")
        >>> layout.size, layout.span("bias")
        (9, slice(6, 9, None))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        object.__setattr__(self, "shapes", tuple(_known_shape(shape) for shape in self.shapes))
        object.__setattr__(self, "dtype", _dtype_name(self.dtype))
        if len(self.names) != len(self.shapes):
            raise ValueError(
                f"a layout needs one shape per name; received {len(self.names)} names, {len(self.shapes)} shapes"
            )
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"names in a layout must be distinct, received {twice!r} more than once")
        if not tf.as_dtype(self.dtype).is_floating:
            raise ValueError(f"a layout's dtype must be a real floating type, received {self.dtype}")

    @classmethod
    def of(cls, variables: Iterable[Variable]) -> "FlatLayout":
        """The layout of variables in the order given.

        The dtype is the smallest that holds them all exactly (float32 and float64 give float64), so that
        packing and unpacking is an exact round trip. Variables that share a name get a number behind it.

        Args:
            variables: Keras variables or `tf.Variable`s.
        """
        variables = list(variables)
        names = _distinct(getattr(v, "path", None) or v.name.split(":")[0] for v in variables)
        return cls(names, tuple(v.shape for v in variables), _common_dtype(variables))

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """n, the length of the vector."""
        return sum(self.sizes)

    @functools.cached_property
    def _spans(self):
        ends = list(itertools.accumulate(self.sizes, initial=0))
        return {name: slice(*ends[i : i + 2]) for i, name in enumerate(self.names)}

    def span(self, name: str) -> slice:
        """The part of the vector that belongs to one tensor, `x[layout.span("dense/kernel")]`, or to a layer with all
        that lies below its name, `x[layout.span("dense")]`.

        Works on x, g and every state vector of length n.

        Raises:
            ValueError: nothing has that name, or what lies below it is not in one piece.
        """
        if name in self._spans:
            return self._spans[name]
        below = [span for tensor, span in self._spans.items() if tensor.startswith(f"{name}/")]
        if not below:
            raise ValueError(f"no tensor or layer is called {name!r}; the layout has: {', '.join(self.names)}")
        if any(span.stop != after.start for span, after in itertools.pairwise(below)):
            raise ValueError(
                f"what lies below {name!r} is not in one piece of the vector; use mask(lambda name: "
                f"name.startswith('{name}/'))"
            )
        return slice(below[0].start, below[-1].stop)

    def mask(self, predicate: Callable[[str], bool]) -> tf.Tensor:
        """Which entries of the vector belong to tensors whose name satisfies a predicate.

        Args:
            predicate: function of a name, true or false. `lambda name: not name.endswith("bias")` selects all
                weights but the biases.

        Returns:
            bool tensor [n].
        """
        chosen = [np.full(size, bool(predicate(name))) for name, size in zip(self.names, self.sizes, strict=True)]
        return tf.constant(np.concatenate([np.zeros(0, bool), *chosen]))

    def fingerprint(self) -> str:
        """A short text that two layouts share exactly when names, shapes, order and dtype agree."""
        text = repr((self.names, self.shapes, self.dtype))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def pack(self, tensors: Iterable[tf.Tensor | tf.IndexedSlices | None]) -> tf.Tensor:
        """k tensors end to end.

        Args:
            tensors: one per name, in order: a tensor of that shape and any floating dtype, an `IndexedSlices`
                (the gradient of an embedding; repeated rows are summed), or None, which stands for zeros.

        Returns:
            [n] of the layout's dtype.

        Raises:
            ValueError: wrong number of tensors, a wrong shape, or nothing but None.
        """
        tensors = list(tensors)
        if len(tensors) != len(self.names):
            raise ValueError(f"the layout packs {len(self.names)} tensors, received {len(tensors)}")
        if tensors and all(t is None for t in tensors):
            raise ValueError(
                "every tensor to pack is None: the loss does not depend on any of "
                f"{', '.join(self.names)}; compute it from these variables inside the tape"
            )
        pieces = [self._flatten(*entry) for entry in zip(self.names, self.shapes, tensors, strict=True)]
        return self._end_to_end(pieces) if pieces else tf.zeros([0], self.dtype)

    def _end_to_end(self, pieces):
        if not xla.is_tracing():
            return tf.concat(pieces, 0)
        # For every entry of a concatenation XLA asks which piece it comes from, one entry at a time.
        x = tf.zeros([self.size], self.dtype)
        for piece, span in zip(pieces, self._spans.values(), strict=True):
            x = tf.raw_ops.TensorStridedSliceUpdate(
                input=x, begin=[span.start], end=[span.stop], strides=[1], value=piece
            )
        return x

    def _flatten(self, name, shape, tensor):
        if tensor is None:
            return tf.zeros([math.prod(shape)], self.dtype)
        if isinstance(tensor, tf.IndexedSlices):
            tensor = tf.math.unsorted_segment_sum(tensor.values, tensor.indices, shape[0])
        tensor = tf.convert_to_tensor(tensor)
        if not tensor.shape.is_compatible_with(shape):
            raise ValueError(
                f"{name} has shape {shape} in the layout, received a tensor of shape {tuple(tensor.shape)}"
            )
        return tf.cast(tf.reshape(tensor, [math.prod(shape)]), self.dtype)

    def unpack(self, x: tf.Tensor) -> list[tf.Tensor]:
        """The inverse of `pack`: k tensors of the layout's shapes.

        Args:
            x: [n] of any dtype; the pieces keep it.

        Returns:
            list of k tensors.

        Raises:
            ValueError: x does not have shape [n].
        """
        x = tf.convert_to_tensor(x)
        if x.shape.rank != 1 or not x.shape.is_compatible_with([self.size]):
            raise ValueError(f"the layout unpacks a vector of shape [{self.size}], received shape {x.shape}")
        if len(self.names) < 2:
            pieces = [x] * len(self.names)  # not a slice, which would hold on to x: `minimize` has room for one
        elif self.size >= _LONG_PIECE * len(self.names):
            pieces = self._slices(x)
        else:
            pieces = tf.split(x, self.sizes)
        return [tf.reshape(piece, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def _slices(self, x):
        """Pieces of x by slices: where they begin and end at multiples of 64 bytes no copies, but each an operation.

        Their gradients, end to end, are that of x. Otherwise TensorFlow would pad each with zeros to length n and add
        up k such vectors; and where it stores the sum in place, in a loop that runs more than once, it fails with
        AlreadyExistsError (its issue 37740).
        """
        cut = tf.custom_gradient(lambda x: ([x[s] for s in self._spans.values()], lambda *g: self._end_to_end(g)))
        return cut(x)


class VariableVector:
    """Variables that can be read and written as one vector.

    Args:
        variables: Keras variables or `tf.Variable`s, each once, of real floating dtypes. Give
            `model.trainable_variables`: variables left out (frozen layers) are neither read nor written.

    Attributes:
        variables: tuple, in the order of the vector.
        layout: their `FlatLayout`.

    Raises:
        ValueError: a variable occurs twice, or is not floating.

    Examples:
        >>> vector = VariableVector(model.trainable_variables)
        >>> w = vector.read()
        >>> vector.assign(w * (1 - 0.1 * tf.cast(vector.layout.mask(lambda name: "bias" not in name), w.dtype)))
    """

    def __init__(self, variables: Iterable[Variable]) -> None:
        self.variables = tuple(variables)
        self._native = tuple(map(native, self.variables))
        if len({id(v) for v in self._native}) != len(self._native):
            raise ValueError("a variable occurs twice; pass each variable once, as model.trainable_variables does")
        self.layout = FlatLayout.of(self.variables)

    @property
    def native(self) -> tuple[tf.Variable, ...]:
        """The `tf.Variable`s behind the variables, in the same order."""
        return self._native

    def arrange(self, items: Iterable[Any], variables: Iterable[Variable]) -> list[Any]:
        """Items that belong to variables in some order, in the order of the vector.

        Args:
            items: one per variable, e.g. gradients.
            variables: all variables of this vector, in any order.

        Raises:
            ValueError: a variable is not part of the vector, is missing, or is given twice.
        """
        variables = list(variables)
        by_identity = {id(native(v)): item for v, item in zip(variables, items, strict=True)}
        own = {id(v): name for v, name in zip(self._native, self.layout.names, strict=True)}
        if by_identity.keys() != own.keys():
            missing = [name for key, name in own.items() if key not in by_identity]
            raise ValueError(
                f"this vector holds {len(own)} variables and must be given exactly these; missing: "
                f"{', '.join(missing) or 'none'}; unknown: {len(by_identity.keys() - own.keys())}. "
                "After freezing, unfreezing or adding layers make a new optimizer, and a new loop around it"
            )
        if len(by_identity) != len(variables):
            keys = [id(native(v)) for v in variables]
            twice = next(own[key] for key in keys if keys.count(key) > 1)
            raise ValueError(f"each variable must be given once, received {twice} more than once")
        return [by_identity[id(v)] for v in self._native]

    def read(self) -> tf.Tensor:
        """All variables as one vector [n] of the layout's dtype."""
        return self.layout.pack(self._native)

    def assign(self, x: tf.Tensor) -> None:
        """Write a vector x [n] back into the variables, each piece cast to its variable's dtype."""
        for variable, piece in zip(self._native, self.layout.unpack(x), strict=True):
            variable.assign(tf.cast(piece, variable.dtype))


def trained_variables(model, extra=()):
    """The trainable variables of a model and those that are trained beside it.

    Raises:
        ValueError: one of them is a weight of the model already.
    """
    own = {id(native(v)) for v in model.trainable_variables}
    for variable in extra:
        if id(native(variable)) in own:
            raise ValueError(f"extra_variables has {variable.name!r}, which is a weight of the model; leave it out")
    return [*model.trainable_variables, *extra]


def pack_gradients(layout, gradients):
    """g from the gradients of all variables, with a warning that names those the loss does not depend on.

    Args:
        layout: a `FlatLayout`.
        gradients: one per name; None stands for zeros.

    Returns:
        [n].
    """
    missing = [name for name, gradient in zip(layout.names, gradients, strict=True) if gradient is None]
    if 0 < len(missing) < len(layout.names):
        warnings.warn(
            f"the loss does not depend on {', '.join(missing)}; their gradient is taken as zero", stacklevel=2
        )
    return layout.pack(gradients)


def native(variable):
    """The `tf.Variable` behind a Keras variable."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _known_shape(shape):
    shape = tuple(tf.TensorShape(shape).as_list())
    if None in shape:
        raise ValueError(f"a layout needs fully known shapes, received {shape}; build the model first")
    return shape


def _dtype_name(dtype):
    try:
        return tf.as_dtype(dtype).name
    except TypeError as error:
        raise ValueError(f"a layout's dtype must be a real floating type, received {dtype!r}") from error


def _distinct(names):
    """Names with a counter behind those that occurred before."""
    taken = set()
    for name in names:
        fresh = (
            name if name not in taken else next(f"{name}_{i}" for i in itertools.count(1) if f"{name}_{i}" not in taken)
        )
        taken.add(fresh)
        yield fresh


def _common_dtype(variables):
    """The smallest floating dtype that represents every value of every variable."""
    dtypes = {tf.as_dtype(v.dtype) for v in variables}
    for variable in variables:
        if not tf.as_dtype(variable.dtype).is_floating:
            raise ValueError(f"only real floating variables can be packed; {variable.name} is {variable.dtype}")
    if len(dtypes) < 2:
        return dtypes.pop().name if dtypes else keras.config.floatx()
    return "float64" if tf.float64 in dtypes else "float32"
