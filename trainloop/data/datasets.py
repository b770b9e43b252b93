"""Data sets in one known form, `DataSplit`: images, rows of a table or sequences, with labels or targets.

Every source is brought into that form - a built-in name, an .npz file, a folder of IDX files, arrays of a user's
own - and every doubt about the data is settled there, once, so that nothing after it has to check again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trainloop import checks
from trainloop.checks import check_finite, check_range, error, first, one_line
from trainloop.data.builtin import CLASSIFICATION, REGRESSION, read_digits, read_parity, read_table, read_text
from trainloop.data.files import ARRAY_NAMES, PATH_KINDS, read_path
from trainloop.data.split import DataSplit, check_pixels

# So many are never too many; beyond, ten times as many as there are numbers.
_MOST_CLASSES = 100_000

DATASETS = {
    "digits": "1,797 handwritten digits (those of scikit-learn), 8x8 scaled to 28x28, 10 classes; no download",
    "mnist": "70,000 handwritten digits, 28x28, 10 classes; downloaded and cached by Keras",
    "fashion_mnist": "70,000 pictures of clothing, 28x28, 10 classes; downloaded and cached by Keras",
    "breast_cancer": "569 rows of 30 features, standardised, 2 classes; no download",
    "wine": "178 rows of 13 features, standardised, 3 classes; no download",
    "diabetes": "442 rows of 10 features, 1 target, all standardised: regression; no download",
    "linnerud": "20 rows of 3 features, 3 targets, all standardised: regression; no download",
    "text": "2,560 sequences of 64 characters of Python's manual, to predict the next one, 96 classes; no download",
    "parity": "2,560 sequences of 16 bits, to tell the parity of all bits so far, 2 classes; generated",
}


def load(name: str | os.PathLike) -> DataSplit:
    """Loads a data set by its built-in name or from a path.

    Args:
        name: one of
            - a key of `DATASETS`. The built-in name wins over a file of that name in the working folder:
              write "./mnist", or pass a `Path` (always taken as a path), to mean the file;
            - an .npz file with the arrays x_train, y_train, x_test, y_test (the layout of Keras);
            - a folder with the four IDX files of MNIST, each plain or .gz, spelled either
              `train-images-idx3-ubyte` or `train-images.idx3-ubyte`.

    The arrays of an .npz file may be
            - images [N, H, W] or [N, H, W, C], integers in 0..255, which are divided by 255, or floats in [0, 1];
              labels [N] or [N, 1], integers or whole floats;
            - float features [N, d], taken as they are; integers [N] or [N, 1] are labels, floats [N] or [N, k] the
              targets of regression, taken as they are too;
            - integer tokens [N, T] with integer labels [N, T].
    The number of classes is 1 + the largest label, and token, of the training part, at least 2.

    Raises:
        FileNotFoundError: the path, or one of the four IDX files, does not exist.
        ValueError: unknown name, failed download, unreadable file, or data that do not fit the above.

    Examples:
        >>> data = load("wine")
        >>> data.x_train.shape, data.classes
        ((142, 13), 3)
    """
    if not isinstance(name, (str, os.PathLike)):
        raise error("name", "a data set name or a path", repr(name), "pass a str or a Path")
    raw = _read_builtin(name) if isinstance(name, str) and name in DATASETS else _read_existing(name)
    return make_split(os.fsdecode(name), raw)


def make_split(name: str, raw: Mapping[str, Any]) -> DataSplit:
    """A `DataSplit` from the four arrays as their source gave them, see `load`.

    Args:
        name: of the source, with which errors start.
        raw: the arrays by their names, and "classes" where the number does not follow from them.

    Raises:
        ValueError: they do not fit together.
    """
    try:
        given = {field: _array(field, raw[field]) for field in ARRAY_NAMES}
        to_inputs, to_targets = _converters(given["x_train"], given["y_train"])
        convert = {"x": to_inputs, "y": to_targets}
        arrays = {field: convert[field[0]](field, array) for field, array in given.items()}
        return DataSplit(**arrays, classes=raw.get("classes", _count_classes(arrays)), name=name)
    except ValueError as fault:
        raise ValueError(checks.printable(f"{name}: {fault}")) from fault


def _array(field: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError as fault:
        raise error(field, "rows of one length", f"something else ({one_line(fault)})", "cut or fill them") from fault


def _converters(x: np.ndarray, y: np.ndarray) -> tuple[Callable, Callable]:
    """How inputs and targets like these are brought into the known form: two functions of (field, array)."""
    if x.ndim in (3, 4):
        return _to_images, _to_labels
    if x.ndim == 2 and x.dtype.kind == "f":
        return _to_numbers, _to_numbers if y.dtype.kind == "f" else _to_labels
    if x.ndim == 2 and x.dtype.kind in "iu" and x.shape == y.shape:
        return _to_tokens, _to_tokens
    expected = "images [N, H, W] or [N, H, W, C], float features [N, d], or integer tokens [N, T] with labels [N, T]"
    received = f"{x.dtype} of shape {x.shape} with y_train {y.shape}"
    raise error("x_train", expected, received, "reshape or convert it")


def _count_classes(arrays: Mapping[str, np.ndarray]) -> int | None:
    if arrays["y_train"].dtype.kind == "f":
        return None
    numbered = {field: arrays[field] for field in ("x_train", "y_train") if arrays[field].dtype.kind == "i"}
    return max(2, *(_count_numbers(field, array) for field, array in numbered.items()))


def _count_numbers(field: str, array: np.ndarray) -> int:
    """1 + the largest, which must not ask for a network of 10^9 outputs where it is no number of a class."""
    count = 1 + int(array.max(initial=0))
    if count > max(_MOST_CLASSES, 10 * array.size):
        received = f"{count - 1} at index {first(array == count - 1)} among {array.size}"
        raise error(field, "class numbers without large gaps", received, "number the classes from 0")
    return count


def _to_numbers(field: str, array: np.ndarray) -> np.ndarray:
    """Finite numbers as float32."""
    if array.dtype.kind not in "iuf":
        raise error(field, "numbers", str(array.dtype), "convert it with astype")
    check_finite(field, array)
    largest = float(np.finfo(np.float32).max)
    check_range(field, array, -largest, largest, "scale them")
    return array.astype(np.float32, copy=False)


def _to_tokens(field: str, array: np.ndarray) -> np.ndarray:
    """Integers as int32."""
    if array.dtype.kind not in "iu":
        raise error(field, "integer tokens", str(array.dtype), "number the tokens from 0")
    check_range(field, array, 0, np.iinfo(np.int32).max, "number the tokens from 0")
    return array.astype(np.int32, copy=False)


def _to_images(field: str, array: np.ndarray) -> np.ndarray:
    """Integer pixels 0..255 or float pixels [0, 1], [N, H, W] or [N, H, W, C], as float32 [N, H, W, C]."""
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.dtype.kind in "iu":
        check_range(field, array, 0, 255, "give integer pixels as bytes")
        images = array.astype(np.float32)
        images /= 255
        return images
    if array.dtype.kind == "f":
        # Before the cast: a huge float64 would overflow to infinity and be reported as such.
        check_pixels(field, array)
        return array.astype(np.float32, copy=False)
    raise error(field, "integer or float pixels", str(array.dtype), "convert the images")


def _to_labels(field: str, array: np.ndarray) -> np.ndarray:
    """Integer or whole float labels, [N] or [N, 1], as int32 [N]."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 1:
        raise error(field, "one label for each sample, [N]", f"shape {array.shape}", "of one-hot rows take np.argmax")
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


def _read_builtin(name: str) -> dict[str, Any]:
    if name in REGRESSION + CLASSIFICATION:
        return read_table(name)
    own = {"digits": read_digits, "text": read_text, "parity": read_parity}
    return own[name]() if name in own else _download(name)


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
