"""Data sets in one known form: `DataSplit`, float32 images in [0, 1] and int32 labels.

`load` brings every source into that form - a built-in name, an .npz file, a folder of IDX files - and every
doubt about the data is settled there, once, so that nothing after it has to check again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.array_checks import check_finite, check_range, error, first, one_line
from trainloop.data_files import PATH_KINDS, read_path

DATASETS = {
    "digits": "1,797 handwritten digits of scikit-learn, 8x8 scaled to 28x28, 10 classes; no download",
    "mnist": "70,000 handwritten digits, 28x28, 10 classes; downloaded and cached by Keras",
    "fashion_mnist": "70,000 pictures of clothing, 28x28, 10 classes; downloaded and cached by Keras",
}


@dataclass(frozen=True, eq=False)
class DataSplit:
    """A training and a test set of images with class labels, checked on construction.

    Fields:
        x_train, x_test: float32 [N, H, W, C], finite, in [0, 1]; H, W and C are the same in both.
        y_train, y_test: int32 [N], in 0..classes-1.
        classes: number of classes, at least 2.
        name: what to call the data set in a report; may be empty.

    Raises:
        ValueError: any of the above does not hold.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    name: str = ""

    def __post_init__(self) -> None:
        # A frozen dataclass sets a field this way; a plain int, unlike NumPy's, can be written to JSON.
        object.__setattr__(self, "classes", checks.integer("classes", self.classes, at_least=2))
        _check_part("train", self.x_train, self.y_train, self.classes)
        _check_part("test", self.x_test, self.y_test, self.classes)
        train, test = self.x_train.shape[1:], self.x_test.shape[1:]
        if train != test:
            received = f"{train} for training and {test} for testing"
            raise error("x_train, x_test", "images of one shape", received, "resize one of them")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.x_train.shape[1:]


def load(name: str | os.PathLike) -> DataSplit:
    """Loads a data set by its built-in name or from a path.

    Args:
        name: one of
            - a key of `DATASETS`. The built-in name wins over a file of that name in the working folder:
              write "./mnist", or pass a `Path` (always taken as a path), to mean the file;
            - an .npz file with the arrays x_train, y_train, x_test, y_test (the layout of Keras);
            - a folder with the four IDX files of MNIST, each plain or .gz, spelled either
              `train-images-idx3-ubyte` or `train-images.idx3-ubyte`.

    Integer images must lie in 0..255 and are divided by 255; float images must already lie in [0, 1]. Images
    [N, H, W] get a channel axis. Labels may be [N] or [N, 1], integers or whole floats. The number of classes
    is 1 + the largest training label, at least 2.

    Raises:
        FileNotFoundError: the path, or one of the four IDX files, does not exist.
        ValueError: unknown name, failed download, unreadable file, or data that do not fit the above.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise error("name", "a data set name or a path", repr(name), "pass a str or a Path")
    raw = _read_builtin(name) if isinstance(name, str) and name in DATASETS else _read_existing(name)
    return _make_split(os.fsdecode(name), raw)


def _make_split(name: str, raw: Mapping[str, Any]) -> DataSplit:
    """A `DataSplit` from the four arrays as their source gave them; errors start with the source's name."""
    try:
        y_train = _to_labels("y_train", raw["y_train"])
        return DataSplit(
            x_train=_to_images("x_train", raw["x_train"]),
            y_train=y_train,
            x_test=_to_images("x_test", raw["x_test"]),
            y_test=_to_labels("y_test", raw["y_test"]),
            classes=max(2, 1 + int(y_train.max(initial=0))),
            name=name,
        )
    except ValueError as fault:
        raise ValueError(f"{name}: {fault}") from fault


def _to_images(field: str, array: Any) -> np.ndarray:
    """Integer pixels 0..255 or float pixels [0, 1], [N, H, W] or [N, H, W, C], as float32 [N, H, W, C]."""
    array = np.asarray(array)
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.dtype.kind in "iu":
        check_range(field, array, 0, 255, "give integer pixels as bytes")
        images = array.astype(np.float32)
        images /= 255
        return images
    if array.dtype.kind == "f":
        # Before the cast: a huge float64 would overflow to infinity and be reported as such.
        _check_pixels(field, array)
        return array.astype(np.float32, copy=False)
    raise error(field, "integer or float pixels", str(array.dtype), "convert the images")


def _to_labels(field: str, array: Any) -> np.ndarray:
    """Integer or whole float labels, [N] or [N, 1], as int32 [N]."""
    array = np.asarray(array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iuf":
        raise error(field, "integer labels", str(array.dtype), "number the classes from 0")
    if array.dtype.kind == "f":
        array = array.astype(np.float64)  # float32 cannot hold the bound below exactly
        fractional = array != np.trunc(array)
        if fractional.any():
            index = first(fractional)
            received = f"{array[index]} at index {index}"
            raise error(field, "whole numbers", received, "give class numbers, not probabilities")
    # Before the cast, which would wrap a larger number around to some other class.
    check_range(field, array, 0, np.iinfo(np.int32).max, "number the classes from 0")
    return array.astype(np.int32)


def _check_pixels(name: str, images: np.ndarray) -> None:
    """ValueError unless all pixels are finite and in [0, 1]."""
    check_finite(name, images)
    check_range(name, images, 0, 1, "scale the pixels to [0, 1], or give load() integers in 0..255")


def _check_array(name: str, array: Any, dtype: type, axes: tuple[str, ...]) -> None:
    """ValueError unless `array` is a NumPy array of `dtype` with one dimension for each name in `axes`."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(axes):
        expected = f"a NumPy array of {np.dtype(dtype)} with shape [{', '.join(axes)}]"
        kind, shape = getattr(array, "dtype", "no dtype"), getattr(array, "shape", "none")
        received = f"{type(array).__name__} of {kind} with shape {shape}"
        raise error(name, expected, received, "convert it with np.asarray, astype and reshape")


def _check_part(part: str, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """The checks on one half of a `DataSplit`; `part` is "train" or "test"."""
    _check_array(f"x_{part}", images, np.float32, ("N", "H", "W", "C"))
    _check_array(f"y_{part}", labels, np.int32, ("N",))
    if images.size == 0:
        raise error(f"x_{part}", "at least one image", f"shape {images.shape}", "give some data")
    if len(images) != len(labels):
        received = f"{len(images)} images and {len(labels)} labels"
        raise error(f"x_{part}, y_{part}", "as many labels as images", received, "give one label per image")
    _check_pixels(f"x_{part}", images)
    check_range(f"y_{part}", labels, 0, classes - 1, f"number the {classes} classes from 0")


def _read_builtin(name: str) -> dict[str, np.ndarray]:
    return _read_digits() if name == "digits" else _download(name)


def _read_digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits as float32 [N, 28, 28, 1] in [0, 1], a stratified fifth of them for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = digits.images[..., np.newaxis].astype(np.float32) / 16
    with tf.device("CPU:0"):  # a GPU would round some last bits differently
        images = tf.image.resize(pixels, (28, 28), method="bilinear").numpy()
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _download(name: str) -> dict[str, np.ndarray]:
    """A data set of `keras.datasets`, from its cache or from the network."""
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as fault:  # Keras raises a bare Exception when a download fails
        expected = "a network connection or a copy in the cache of Keras"
        advice = f"check the network, or pass the path of {PATH_KINDS}"
        raise error(f"could not download {name!r}", expected, f"'{one_line(fault)}'", advice) from fault
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _read_existing(name: str | os.PathLike) -> dict[str, np.ndarray]:
    path = os.fsdecode(name)
    if not os.path.exists(path):
        raise _nothing_there(name)
    return read_path(path)


def _nothing_there(name: str | os.PathLike) -> Exception:
    """The error for a `name` that does not exist: a missing path, or else a mistyped data set."""
    text = os.fsdecode(name)
    separators = {"/", os.sep, os.altsep or os.sep}
    if not isinstance(name, str) or text.lower().endswith(".npz") or separators & set(text):
        problem = f"expected {PATH_KINDS}, received a path that does not exist; check its spelling"
        return FileNotFoundError(f"{text}: {problem}")
    advice = "check the spelling" + checks.near_miss(text, list(DATASETS))
    return error("name", f"one of {', '.join(DATASETS)}, or the path of {PATH_KINDS}", repr(text), advice)
