"""What a run leaves behind: every step's numbers, every epoch's summary, and how it ended."""

import base64
import dataclasses
import html
from typing import TYPE_CHECKING, Any

import numpy as np

from trainloop.files import plain
from trainloop.status import Status
from trainloop.types import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plotted:
    """A result that can be drawn, unless it says otherwise as the numbers of its `history` over the steps."""

    def plot(self, path: Path | None = None, title: str = "") -> "Figure":
        """The result as a figure: of a run its curves, of a spectrum the density of the eigenvalues.

        Args:
            path: of an image file to write; its suffix says of which kind. None writes nothing.
            title: above the figure.

        Returns:
            A Matplotlib figure, which a notebook shows.
        """
        figure = self._drawn(title)
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def _drawn(self, title: str) -> "Figure":
        from trainloop.plots.curves import draw_curves

        return draw_curves(self, title)


@dataclasses.dataclass(frozen=True, repr=False)
class RunResult(Plotted):
    """How a run ended and what it saw.

    Attributes:
        status: a `Status`.
        message: what it means, or the reason of the hook or signal that ended the run.
        history: one array entry per step under each of "step", "epoch", "samples", "loss", "grad_norm",
            every scalar of the optimizer's state, every number that hooks watch, and what the hook `Measure` finds, NaN
            where it did not measure; for a list of phases also "phase", counted from 0, and NaN in the rows of those
            that lack a column. All arrays are equally long, so `pandas.DataFrame(result.history)` works. Steps
            and epochs count from 1. Losses and gradients belong to the weights *before* the step.
        epochs: the same with one entry per finished epoch: "epoch", "step", "seconds", "loss", the metrics,
            and with validation data "val_loss" and the metrics under "val_".
        step: steps the optimizer has taken in its life.
        seconds: wall-clock seconds of this run.
        evaluations: how often the objective and its gradient were evaluated in this run, by kind.

    Examples:
        >>> result = TrainLoop(model, Adam(), loss).run((x, y), epochs=2)
        >>> result.history["loss"].shape, result.status.name
        ((2,), 'FINISHED')
        >>> figure = result.plot("curves.png")
    """

    status: Status
    message: str
    history: dict[str, np.ndarray]
    epochs: dict[str, np.ndarray]
    step: int
    seconds: float
    evaluations: dict[str, int]

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.evaluations.items() if count)
        return (
            f"RunResult({self.status.name}: {self.message}; step {self.step}, {self.seconds:.1f} s; "
            f"evaluations: {counts}; history: {_shortened(self.history)}; epochs: {_shortened(self.epochs)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it: arrays are lists, NaN and infinities are None, the status is its name."""
        columns = {
            part: {name: [plain(value) for value in values] for name, values in getattr(self, part).items()}
            for part in ("history", "epochs")
        }
        return dataclasses.asdict(self) | columns | {"status": self.status.name, "seconds": plain(self.seconds)}

    def _repr_html_(self):
        """What a notebook shows: how it ended, and the curves."""
        image = base64.b64encode(self.plot().png()).decode() if self.history else None
        shown = f'<br><img alt="curves of the run" src="data:image/png;base64,{image}">' if image else ""
        return f"<p>step {self.step}, {self.seconds:.1f} s: {html.escape(self.message)}</p>{shown}"


def _shortened(names, most=12):
    """The first of many names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
