"""Data sets that need no download: digits, tables of scikit-learn, and sequences.

digits    handwritten digits from the file beside this one, whose source and licence are in digits.txt
tables    Features, and the targets of regression, are standardised with the mean and the standard deviation of the
          training part: (value - mean) / deviation, column by column. So a mean squared error of 1 is that of
          predicting the mean.
text      y[t] = x[t + 1], the next character of a text
parity    y[t] = (x[0] + ... + x[t]) mod 2, a rule that has to be found
"""

from __future__ import annotations

import importlib.resources
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop.errors import needed_for

REGRESSION = ("diabetes", "linnerud")
CLASSIFICATION = ("breast_cancer", "wine")


def read_digits() -> dict[str, np.ndarray]:
    """The digits that scikit-learn ships, scaled to 28 x 28, a stratified fifth of them for testing.

    Returns:
        x_train, x_test: float32 [N, 28, 28, 1] in [0, 1]; y_train, y_test: uint8 [N].
    """
    with importlib.resources.files("trainloop.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        digits = {name: arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    with tf.device("CPU:0"):  # a GPU would round some last bits differently
        for name in ("x_train", "x_test"):
            pixels = digits[name][..., np.newaxis].astype(np.float32) / 16
            digits[name] = tf.image.resize(pixels, (28, 28), method="bilinear").numpy()
    return digits


def read_table(name: str) -> dict[str, np.ndarray]:
    """One of the tables, a fixed fifth of it for testing, which is stratified where there are classes.

    Returns:
        x_train, x_test: float32 [N, d]. y_train, y_test: float32 [N, k], or int32 [N] for classes.
    """
    with needed_for(f"the data set {name!r}", "data"):
        from sklearn import datasets
        from sklearn.model_selection import train_test_split

    features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features, targets, test_size=0.2, random_state=0, stratify=targets if name in CLASSIFICATION else None
    )
    x_train, x_test = _standardised(x_train, x_test)
    if name in CLASSIFICATION:
        y_train, y_test = y_train.astype(np.int32), y_test.astype(np.int32)
    else:
        y_train, y_test = _standardised(y_train.reshape(len(y_train), -1), y_test.reshape(len(y_test), -1))
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    return tuple(((part - mean) / deviation).astype(np.float32) for part in (train, test))


# Printable ASCII in its order, then the end of a line.
ALPHABET = "".join(map(chr, range(32, 127))) + "\n"

_TEXT_LENGTH, _TEXT_TRAIN, _TEXT_TEST = 64, 2048, 512
_PARITY_LENGTH, _PARITY_TRAIN, _PARITY_TEST = 16, 2048, 512


def read_text() -> dict[str, Any]:
    """Characters of Python's own manual, to predict the next one.

    The text is `pydoc_data.topics`, what `help("topics")` shows in Python: topics in alphabetic order, every paragraph
    where it occurs first, characters other than those of `ALPHABET` left out. It differs a little from one version
    of Python to the next. The first 131,073 characters are for training, the following 32,769 for testing.

    Returns:
        x: int32 [N, 64], places in `ALPHABET`; y: int32 [N, 64], each the character after that in x; classes.
    """
    tokens = encode(_manual())
    train = _TEXT_TRAIN * _TEXT_LENGTH + 1
    test = train + _TEXT_TEST * _TEXT_LENGTH + 1
    x_train, y_train = _windows(tokens[:train])
    x_test, y_test = _windows(tokens[train:test])
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, "classes": len(ALPHABET)}


def encode(text: str) -> np.ndarray:
    """The places of a text's characters in `ALPHABET`, int32; other characters are left out."""
    place = {character: i for i, character in enumerate(ALPHABET)}
    return np.array([place[character] for character in text if character in place], np.int32)


def decode(tokens: np.ndarray) -> str:
    """The text of some places in `ALPHABET`."""
    return "".join(ALPHABET[token] for token in tokens)


def read_parity() -> dict[str, np.ndarray]:
    """Random bits and the parity of all bits so far, from a fixed seed; int32 [N, 16].

    Every output depends on every input before it, so an optimizer has to carry one bit along the whole sequence.
    2,560 different sequences of the 65,536 there are.
    """
    rng = np.random.default_rng(0)
    count = _PARITY_TRAIN + _PARITY_TEST
    numbers = rng.choice(2**_PARITY_LENGTH, count, replace=False)
    x = (numbers[:, np.newaxis] >> np.arange(_PARITY_LENGTH) & 1).astype(np.int32)
    y = np.cumsum(x, axis=1, dtype=np.int32) % 2
    train, test = slice(_PARITY_TRAIN), slice(_PARITY_TRAIN, None)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


def _manual() -> str:
    from pydoc_data.topics import topics

    paragraphs = (paragraph.strip("\n") for name in sorted(topics) for paragraph in topics[name].split("\n\n"))
    return "\n\n".join(dict.fromkeys(filter(None, paragraphs)))


def _windows(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N * T + 1] as x [N, T] and y [N, T], which is x one place later."""
    return tokens[:-1].reshape(-1, _TEXT_LENGTH), tokens[1:].reshape(-1, _TEXT_LENGTH)
