"""NIST's nonlinear regression sets: y = model(b; x) + e, two starts, certified parameters. See tests/nist/README.md."""

import dataclasses
import math
import pathlib
import re

import numpy as np
import tensorflow as tf

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "nist"


def _gauss(b, x):
    peaks = b[2] * tf.exp(-(((x - b[3]) / b[4]) ** 2)) + b[5] * tf.exp(-(((x - b[6]) / b[7]) ** 2))
    return b[0] * tf.exp(-b[1] * x) + peaks


def _three_exponentials(b, x):
    return b[0] * tf.exp(-b[1] * x) + b[2] * tf.exp(-b[3] * x) + b[4] * tf.exp(-b[5] * x)


def _cubic_over_cubic(b, x):
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def _enso(b, x):
    def waves(period, c, s):
        return c * tf.cos(2 * math.pi * x / period) + s * tf.sin(2 * math.pi * x / period)

    return b[0] + waves(12.0, b[1], b[2]) + waves(b[3], b[4], b[5]) + waves(b[6], b[7], b[8])


MODELS = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": lambda b, x: b[0] * (1 - tf.exp(-b[1] * x)),
    "Chwirut1": lambda b, x: tf.exp(-b[0] * x) / (b[1] + b[2] * x),
    "Chwirut2": lambda b, x: tf.exp(-b[0] * x) / (b[1] + b[2] * x),
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _enso,
    "Eckerle4": lambda b, x: b[0] / b[1] * tf.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "Gauss3": _gauss,
    "Hahn1": _cubic_over_cubic,
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": _three_exponentials,
    "Lanczos2": _three_exponentials,
    "Lanczos3": _three_exponentials,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * tf.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * tf.exp(-x * b[3]) + b[2] * tf.exp(-x * b[4]),
    "Misra1a": lambda b, x: b[0] * (1 - tf.exp(-b[1] * x)),
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * tf.exp(-b[2] * x[1]),
    "Rat42": lambda b, x: b[0] / (1 + tf.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + tf.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - tf.atan(b[2] / (x - b[3])) / math.pi,
    "Thurber": _cubic_over_cubic,
}


@dataclasses.dataclass
class Regression:
    """One set.

    Attributes:
        name: of the set.
        x, y: [m] each; x [2, m] for Nelson, whose y is a logarithm.
        starts: [2, n].
        certified: [n] parameters.
        squares: certified residual sum of squares.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    certified: np.ndarray
    squares: float

    def residuals(self, b):
        """model(b; x) - y [m]."""
        return MODELS[self.name](b, self.x) - self.y

    def digits(self, b):
        """How many leading digits of the worst parameter are right; 11 where all that are certified are."""
        errors = np.abs(np.asarray(b) - self.certified) / np.abs(self.certified)
        with np.errstate(divide="ignore"):
            digits = -np.log10(np.max(errors)) if np.all(np.isfinite(errors)) else 0.0
        return float(np.clip(digits, 0, 11))


def load(name):
    """The `Regression` of this name."""
    lines = (FOLDER / f"{name}.dat").read_text().splitlines()
    rows = [[float(t) for t in line.split("=")[1].split()] for line in lines if re.match(r"\s*b\d+ =", line)]
    squares = next(float(line.split(":")[1]) for line in lines if line.startswith("Residual Sum of Squares"))
    first = max(i for i, line in enumerate(lines) if line.startswith("Data:")) + 1
    y, *x = np.array([[float(t) for t in line.split()] for line in lines[first:] if line.strip()]).T
    parameters = np.array(rows)
    if name == "Nelson":
        y = np.log(y)
    x = np.array(x) if len(x) > 1 else x[0]
    return Regression(name, x, y, parameters[:, :2].T, parameters[:, 2], squares)
