"""One step looked at and not taken: its vectors as NumPy arrays, and numbers about them variable by variable."""

import contextlib
import dataclasses
import functools
import html
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from trainloop.distributed.replicas import without_strategy
from trainloop.optimizer import state as states
from trainloop.status import Status
from trainloop.types import Path
from trainloop.vectors import linalg, xla
from trainloop.vectors.layout import FlatLayout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADINGS = ("variable", "shape", "|x|", "|g|", "|step|", "|step|/|x|", "max |g|", "g = 0", "not finite: g", "step")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What the next step would do. `print` shows it as a table, a notebook too.

    Attributes:
        layout: the `FlatLayout` of every vector: `g[layout.span("dense/kernel")]`.
        f: the objective at x.
        x: [n], the weights.
        g: [n], the gradient there as `update` gets it, that is after `global_clipnorm`.
        x_new: [n], the weights that the optimizer proposes.
        state: the vectors of length n among the new state, by path.
        scalars: its scalars by path, as they are logged. What a matrix tells of itself is known only after a step.
        status: a `Status`. A negative one means that the step would not be taken.

    Examples:
        >>> loop = TrainLoop(model, Momentum(0.1), loss)
        >>> seen = loop.inspect((x, y))
        >>> seen.status.name, seen.state["velocity"].shape == seen.x.shape
        ('RUNNING', True)
        >>> float(np.round(seen.angle, 3))  # the first step goes along -g
        0.0
    """

    layout: FlatLayout
    f: float
    x: np.ndarray
    g: np.ndarray
    x_new: np.ndarray
    state: dict[str, np.ndarray]
    scalars: dict[str, float]
    status: Status

    @functools.cached_property
    def step(self) -> np.ndarray:
        """[n], x_new - x."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.x_new - self.x

    @property
    def message(self) -> str:
        """What the status means."""
        return self.status.message

    @functools.cached_property
    def angle(self) -> float:
        """Between -g and the step, in degrees: 0 is steepest descent, above 90 leads uphill; NaN where one is zero."""
        return float(linalg.angle(tf.constant(-self.g), tf.constant(self.step)))

    def norms(self) -> dict[str, dict[str, float]]:
        """{variable: {"x": its Euclidean norm, "g": that of its gradient, "step": of its change}}."""
        return {
            name: {kind: _norm(vector[self.layout.span(name)]) for kind, vector in self._vectors().items()}
            for name in self.layout.names
        }

    def histogram(self, path: Path | None = None) -> "Figure":
        """How large the entries of x, g and the step are in every variable, as a picture.

        Args:
            path: where to write it as well; None for nowhere.

        Returns:
            `Picture`, a Matplotlib figure that notebooks show.
        """
        from trainloop.plots.histograms import draw_histograms

        figure = draw_histograms(self.layout, self._vectors(), self._title())
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def __str__(self):
        rows = [_HEADINGS, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        return "\n".join([self._title(), self._direction(), self._state(), *(line.rstrip() for line in lines)])

    __repr__ = __str__

    def _repr_html_(self):
        cells = [[html.escape(cell) for cell in row] for row in (_HEADINGS, *self._rows())]
        rows = [f"<tr><th>{'</th><th>'.join(cells[0])}</th></tr>"]
        rows += [f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells[1:]]
        told = "<br>".join(html.escape(line) for line in (self._title(), self._direction(), self._state()))
        return f"<p>{told}</p><table>{''.join(rows)}</table>"

    def _vectors(self):
        return {"x": self.x, "g": self.g, "step": self.step}

    def _title(self):
        return f"f = {self.f:.6g}, n = {self.layout.size:,}, {self.status.name.lower()}: {self.message}"

    def _direction(self):
        if np.isnan(self.angle):
            return "the step has no direction: g or the step is zero or not finite"
        where = "" if self.angle <= 90 else ", uphill"
        return f"angle between -g and the step: {self.angle:.2f} degrees{where}"

    def _state(self):
        told = [f"|{path}| {_norm(vector):.4g}" for path, vector in self.state.items()]
        told += [f"{path} {value:.6g}" for path, value in self.scalars.items()]
        return f"new state: {'  '.join(told) or 'nothing'}"

    def _rows(self):
        spans = {name: self.layout.span(name) for name in self.layout.names}
        shapes = [str(list(shape)) for shape in self.layout.shapes]
        for name, shape in zip(spans, shapes, strict=True):
            yield self._row(name, shape, spans[name])
        yield self._row("all", f"[{self.layout.size}]", slice(None))

    def _row(self, name, shape, span):
        x, g, step = (vector[span] for vector in self._vectors().values())
        of_x, of_g, of_step = map(_norm, (x, g, step))
        relative = f"{of_step / of_x:.2e}" if of_x > 0 else "-"
        numbers = [f"{of_x:.3e}", f"{of_g:.3e}", f"{of_step:.3e}", relative, f"{np.max(np.abs(g), initial=0):.3e}"]
        zeros = f"{100 * np.mean(g == 0):.0f} %" if len(g) else "-"
        return [name, shape, *numbers, zeros, *(str(np.count_nonzero(~np.isfinite(v))) for v in (g, step))]


class Inspector:
    """Makes `Inspection`s of the next batch of a feed.

    Args:
        propose: function batch -> `ProposedStep`, where `batch` is a `Batch`, which leaves all variables as they were.
        layout: of its vectors.
        eager: do not compile it.
    """

    def __init__(self, propose, layout, eager):
        self._propose, self._layout, self._eager, self._compiled = propose, layout, eager, {}

    def __call__(self, feed):
        feed.hold()
        source, kind = feed.source(), type(feed)
        if kind not in self._compiled:
            function = functools.partial(self._first, kind)
            self._compiled[kind] = function if self._eager else tf.function(function, autograph=False)
        with xla.running() if self._eager else contextlib.nullcontext():
            numbers = without_strategy(self._compiled[kind], source)
        return _as_inspection(self._layout, tf.nest.map_structure(np.array, numbers))

    def _first(self, kind, source):
        # As in the loop the batch is taken inside of compiled code, so that the same graph gives the same bits.
        step = self._propose(kind.batch(source, 0)[1])
        numbers = {"f": step.f, "x": step.x, "g": step.g, "x_new": step.x_new, "status": step.status}
        scalars = {path: leaf for path, leaf in states.scalars(step.state).items() if path in step.state}
        return {**numbers, "state": step.state_vectors(), "scalars": scalars}


def _as_inspection(layout, arrays):
    scalars = {path: value.item() for path, value in arrays.pop("scalars").items()}
    f, status = float(arrays.pop("f")), Status(int(arrays.pop("status")))
    return Inspection(layout=layout, f=f, status=status, scalars=scalars, **arrays)


def _norm(v):
    """|v| as a float, summed in float64."""
    return float(linalg.norm(tf.constant(v, tf.float64)))
