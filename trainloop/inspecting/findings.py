"""What one look at a trained network finds: how curved the loss is there, and along which directions.

    eigenvalues     the largest ones of a curvature matrix C over the data, and the density of all
    step            what the optimizer would do next, on one batch
    lines           f(x + t d) over the data, d the step, the eigenvectors, and -g of that batch
    plane           f(x + a s + b v), s the step and v the first eigenvector

The quadratic model of a line, f + t g'd + t^2 d'C d / 2, says up to where the matrix describes the loss.
"""

import dataclasses
from typing import Any

import numpy as np

from trainloop.curvatures.operator import CurvatureOperator
from trainloop.curvatures.spectrum import Spectrum
from trainloop.loop.inspection import Inspection

# Points of a line, and of a plane along each side.
_LINE, _PLANE = 41, 21

# A line along a step goes so many steps back and forth.
_STEPS = 3.0

# A line along an eigenvector of eigenvalue c goes to where the quadratic model is f + _RISE max(f, least).
_RISE, _LEAST = 2.0, 1e-6


@dataclasses.dataclass(frozen=True)
class Line:
    """The loss along a direction.

    Attributes:
        name: of the direction.
        t: [k] multiples of the direction.
        losses: [k] f(x + t d).
        curvature: d'C d.
    """

    name: str
    t: np.ndarray
    losses: np.ndarray
    curvature: float

    @property
    def model(self) -> np.ndarray:
        """[k], the parabola through f with the slope that the losses have at t = 0 and the curvature of C."""
        middle = len(self.t) // 2
        slope = (self.losses[middle + 1] - self.losses[middle - 1]) / (self.t[middle + 1] - self.t[middle - 1])
        return self.losses[middle] + slope * self.t + self.curvature * self.t**2 / 2


@dataclasses.dataclass(frozen=True)
class Plane:
    """The loss on a plane: losses [k, k] at x + a s + b v, rows for b, columns for a."""

    a: np.ndarray
    b: np.ndarray
    losses: np.ndarray


@dataclasses.dataclass(frozen=True)
class Findings:
    """All of it.

    Attributes:
        operator: the `CurvatureOperator`.
        eigenvalues, eigenvectors: [k], [n, k], the largest first.
        spectrum: the `Spectrum`.
        step: an `Inspection`.
        lines: list of `Line`.
        plane: a `Plane`.
    """

    operator: CurvatureOperator
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    spectrum: Spectrum
    step: Inspection
    lines: list[Line]
    plane: Plane


def look(operator: CurvatureOperator, step: Inspection, k: int, seed: int, tell: Any = lambda line: None) -> Findings:
    """The `Findings` at the weights of an operator.

    Args:
        operator: a `CurvatureOperator`.
        step: the `Inspection` of the next step, at the same weights.
        k: number of eigenpairs.
        seed: of what is drawn for the density.
        tell: function of a line, called before each part.
    """
    tell(f"the {k} largest eigenvalues of n = {operator.shape[0]:,}")
    eigenvalues, eigenvectors = operator.top(k, seed)
    tell("the density of all eigenvalues")
    spectrum = operator.spectrum(probes=3, steps=60, seed=seed)
    tell("the loss along lines and on a plane")
    lines = [
        _along(operator, name, d, reach) for name, d, reach in _directions(operator, step, eigenvalues, eigenvectors)
    ]
    return Findings(
        operator, eigenvalues, eigenvectors, spectrum, step, lines, _plane(operator, lines, step, eigenvectors)
    )


def _directions(operator, step, eigenvalues, eigenvectors):
    """(name, direction [n], how far) of each line."""
    f = float(operator.losses(operator.x.numpy()[None])[0])
    yield "the step", step.step, _STEPS
    for i in range(min(2, len(eigenvalues))):
        reach = np.sqrt(2 * _RISE * max(f, _LEAST) / max(abs(eigenvalues[i]), np.finfo(float).tiny))
        yield f"eigenvector {i + 1}", eigenvectors[:, i], reach
    length = np.linalg.norm(step.g) or 1.0
    yield "-g", -step.g / length, _STEPS * np.linalg.norm(step.step)


def _along(operator, name, d, reach):
    t = np.linspace(-reach, reach, _LINE)
    losses = operator.losses(operator.x.numpy() + t[:, None] * d)
    return Line(name, t, losses, float(d @ (operator @ d)))


def _plane(operator, lines, step, eigenvectors):
    """On a coarser grid than the lines, as far as these go."""
    a, b = (np.linspace(line.t[0], line.t[-1], _PLANE) for line in lines[:2])
    points = operator.x.numpy() + (a[None, :, None] * step.step + b[:, None, None] * eigenvectors[:, 0])
    losses = np.concatenate([operator.losses(row) for row in points])
    return Plane(a, b, losses.reshape(len(b), len(a)))
