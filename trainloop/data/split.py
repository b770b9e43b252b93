"""The one known form of a data set: `DataSplit`, checked in every respect when it is made.

x                           one sample          what it is
float32 [N, H, W, C]        an image            pixels in [0, 1]
float32 [N, d]              a row of a table    features, standardised by whoever made them
int32   [N, T]              a sequence          tokens, numbered from 0

y                           classes     what it is
int32   [N]                 a number    the class of an image or a row
int32   [N, T]              a number    the token that follows, or any other class, at every position of a sequence
float32 [N, k]              None        k numbers to be predicted: regression
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainloop import checks
from trainloop.checks import check_finite, check_range, error

_IMAGES, _FEATURES, _TOKENS = "images", "features", "tokens"
_ONE = {_IMAGES: "image", _FEATURES: "row of features", _TOKENS: "sequence of tokens"}


@dataclass(frozen=True, eq=False, repr=False)
class DataSplit:
    """A training and a test set, checked on construction.

    Attributes:
        x_train, x_test: of one kind and, but for N, of one shape:
            images, float32 [N, H, W, C], finite, in [0, 1];
            features, float32 [N, d], finite;
            tokens, int32 [N, T], in 0..classes-1.
        y_train, y_test: class labels, int32 in 0..classes-1, [N] for images and features and [N, T] for tokens;
            or with classes=None finite float32 targets [N, k]. Targets [N] are kept as [N, 1], so that they never
            broadcast against predictions [N, 1].
        classes: number of classes, at least 2; None for regression. For tokens also the size of the vocabulary.
        name: what to call the data set in a report; may be empty.

    Raises:
        ValueError: any of the above does not hold.

    Examples:
        >>> rows, targets = np.zeros([6, 3], "float32"), np.zeros([6, 2], "float32")
        >>> data = DataSplit(rows[:4], targets[:4], rows[4:], targets[4:], classes=None)
        >>> data.kind, data.input_shape, data.outputs
        ('features', (3,), 2)
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int | None
    name: str = ""

    def __post_init__(self) -> None:
        # A frozen dataclass sets a field this way; a plain int, unlike NumPy's, can be written to JSON.
        if self.classes is not None:
            object.__setattr__(self, "classes", checks.integer("classes", self.classes, at_least=2))
        for part in ("train", "test"):
            self._check_inputs(f"x_{part}", getattr(self, f"x_{part}"))
            object.__setattr__(self, f"y_{part}", self._checked_targets(f"y_{part}", getattr(self, f"y_{part}")))
            self._check_lengths(part)
        _check_one_shape("x_train, x_test", self.kind, self.x_train, self.x_test)
        _check_one_shape("y_train, y_test", "targets", self.y_train, self.y_test)

    def __repr__(self) -> str:
        samples = f"{len(self.x_train):,} training and {len(self.x_test):,} test samples"
        shape = ", ".join(f"{side:,}" for side in self.input_shape)
        outputs = f"{self.outputs} {'targets' if self.classes is None else 'classes'}"
        return f"DataSplit({self.name or 'unnamed'}: {samples} of shape [{shape}], {outputs})"

    @property
    def kind(self) -> str:
        """What the samples are: "images", "features" or "tokens"."""
        return _kind(self.x_train)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (H, W, C), (d,) or (T,)."""
        return self.x_train.shape[1:]

    @property
    def outputs(self) -> int:
        """How many numbers a model puts out, at every position of a sequence: classes, or the k of regression."""
        return self.y_train.shape[1] if self.classes is None else self.classes

    def _check_inputs(self, field: str, inputs: Any) -> None:
        kind = _kind(inputs)
        if kind == _TOKENS:
            _check_array(field, inputs, np.int32, ("N", "T"))
        else:
            _check_array(field, inputs, np.float32, ("N", "d") if kind == _FEATURES else ("N", "H", "W", "C"))
        if inputs.size == 0:
            raise error(field, f"at least one {_ONE[kind]}", f"shape {inputs.shape}", "give some data")
        if kind == _TOKENS:
            self._check_numbers(field, inputs, "tokens")
        elif kind == _FEATURES:
            check_finite(field, inputs)
        else:
            check_pixels(field, inputs)

    def _checked_targets(self, field: str, targets: Any) -> np.ndarray:
        if self.classes is not None:
            _check_array(field, targets, np.int32, ("N", "T") if self.kind == _TOKENS else ("N",))
            self._check_numbers(field, targets, "classes")
            return targets
        if isinstance(targets, np.ndarray) and targets.ndim == 1:
            targets = targets[:, np.newaxis]
        _check_array(field, targets, np.float32, ("N", "k"))
        if targets.shape[1] == 0:
            raise error(field, "at least one target for each sample", f"shape {targets.shape}", "give some data")
        check_finite(field, targets)
        return targets

    def _check_numbers(self, field: str, numbers: np.ndarray, what: str) -> None:
        if self.classes is None:
            advice = "give the size of the vocabulary as classes"
            raise error("classes", f"a number for the tokens in {field}", "None", advice)
        check_range(field, numbers, 0, self.classes - 1, f"number the {self.classes} {what} from 0")

    def _check_lengths(self, part: str) -> None:
        inputs, targets = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
        fields = f"x_{part}, y_{part}"
        what = "labels" if self.classes is not None else "targets"
        if len(inputs) != len(targets):
            received = f"{len(inputs)} {self.kind} and {len(targets)} {what}"
            raise error(fields, f"as many {what} as {self.kind}", received, "give one per sample")
        if self.kind == _TOKENS and inputs.shape != targets.shape:
            received = f"shapes {inputs.shape} and {targets.shape}"
            raise error(fields, "a label for every position", received, "give both the same length T")


def check_pixels(name: str, images: np.ndarray) -> None:
    """ValueError unless all pixels are finite and in [0, 1]."""
    check_finite(name, images)
    check_range(name, images, 0, 1, "scale the pixels to [0, 1], or give load() integers in 0..255")


def _kind(inputs: Any) -> str:
    """What these inputs seem to be; images where they are none of the others, or no array at all."""
    if getattr(inputs, "ndim", None) != 2:
        return _IMAGES
    return _TOKENS if inputs.dtype.kind in "iu" else _FEATURES


def _check_array(name: str, array: Any, dtype: type, axes: tuple[str, ...]) -> None:
    """ValueError unless `array` is a NumPy array of `dtype` with one dimension for each name in `axes`."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(axes):
        expected = f"a NumPy array of {np.dtype(dtype)} with shape [{', '.join(axes)}]"
        kind, shape = getattr(array, "dtype", "no dtype"), getattr(array, "shape", "none")
        received = f"{type(array).__name__} of {kind} with shape {shape}"
        raise error(name, expected, received, "convert it with np.asarray, astype and reshape")


def _check_one_shape(fields: str, kind: str, train: np.ndarray, test: np.ndarray) -> None:
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        received = f"{train.shape[1:]} for training and {test.shape[1:]} for testing"
        raise error(fields, f"{kind} of one shape", received, "resize one of them")
