"""What a run leaves behind: every step's numbers, every epoch's summary, and how it ended."""

import base64
import dataclasses
import html
from typing import TYPE_CHECKING, Any

import numpy as np

from trainloop.json_values import plain
from trainloop.status import Status
from trainloop.typing import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Columns that say which step it is and how it ended, not how good: no display and no figure shows them.
BOOKKEEPING = ("step", "epoch", "samples", "status")


@dataclasses.dataclass(frozen=True, repr=False)
class RunResult:
    """How a run ended and what it saw.

    Attributes:
        status: a `Status`.
        message: its sentence.
        history: one array entry per step under each of "step", "epoch", "samples", "loss", "grad_norm",
            every scalar of the method's state and every number that hooks watch. All arrays are equally long, so
            `pandas.DataFrame(result.history)` works. Steps and epochs count from 1. Losses and gradients belong
            to the weights *before* the step.
        epochs: the same with one entry per finished epoch: "epoch", "step", "seconds", "loss", the metrics,
            and with validation data "val_loss" and the metrics under "val_".
        step: steps the optimizer has taken in its life.
        seconds: wall-clock seconds of this run.
        evaluations: how often the objective and its gradient were evaluated in this run, by kind.

    Example:
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

    def plot(self, path: Path | None = None, title: str = "") -> "Figure":
        """Loss, metrics, gradient norm and the method's own scalars over the steps, as a figure.

        Args:
            path: of an image file to write; its suffix says of which kind. None writes nothing.
            title: above the figure.

        Returns:
            A Matplotlib figure, which a notebook shows.
        """
        from trainloop.report import draw_curves

        figure = draw_curves(self, title)
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

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


class Recorder:
    """Collects blocks of steps and epochs while a run goes on.

    The mean loss of an epoch comes from running sums, taken step after step: they are the same however the steps are
    cut into blocks, and however often the run was interrupted.
    """

    def __init__(self):
        self._blocks, self._epochs = [], []
        self._sums = {"epoch": 0, "loss": 0.0, "samples": 0.0}
        self._last_finite_loss = None

    def add_block(self, logs):
        """Keep the arrays of one block; every block has the same names and lies in one epoch."""
        self._blocks.append(logs)
        # A block may be one step long, and its arrays take ten times what is in them: few long ones are kept.
        while len(self._blocks) > 1 and len(self._blocks[-2]["step"]) <= len(self._blocks[-1]["step"]):
            self._blocks[-2:] = [_joined(self._blocks[-2:])]
        if self._sums["epoch"] != logs["epoch"][0]:
            self._sums = {"epoch": int(logs["epoch"][0]), "loss": 0.0, "samples": 0.0}
        samples = logs["samples"].astype(float)
        self._sums["loss"] = _running_sum(self._sums["loss"], logs["loss"].astype(float) * samples)
        self._sums["samples"] = _running_sum(self._sums["samples"], samples)
        finite = logs["loss"][np.isfinite(logs["loss"])]
        if finite.size:
            self._last_finite_loss = float(finite[-1])

    def add_epoch(self, summary):
        """Keep the numbers of one epoch."""
        self._epochs.append(summary)

    def history(self):
        """All steps, one array per name."""
        return _joined(self._blocks)

    def epochs(self):
        """All epochs, one array per name."""
        names = self._epochs[0] if self._epochs else ()
        return {name: np.array([epoch[name] for epoch in self._epochs]) for name in names}

    def last_finite_loss(self):
        """The newest finite loss, or None."""
        return self._last_finite_loss

    def epoch_loss(self, epoch):
        """Mean loss over the samples of the newest epoch, as far as this run has seen it; NaN where it saw nothing."""
        seen = self._sums["epoch"] == epoch
        return self._sums["loss"] / self._sums["samples"] if seen else float("nan")

    def state(self):
        """What a resumed run needs: JSON-able. Steps are not part of it, there may be millions."""
        return {"epochs": self._epochs, "sums": self._sums, "last_finite_loss": self._last_finite_loss}

    def go_to(self, step, state):
        """Be as it was after a step: what came later is forgotten.

        Args:
            step: the last one to keep.
            state: what `state` returned then.
        """
        kept = [{name: values[block["step"] <= step] for name, values in block.items()} for block in self._blocks]
        self._blocks = [block for block in kept if len(block["step"])]
        self._epochs, self._sums = list(state["epochs"]), dict(state["sums"])
        self._last_finite_loss = state["last_finite_loss"]


def _joined(blocks):
    """Blocks end to end: one array per name."""
    names = blocks[0] if blocks else ()
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}


def _running_sum(total, terms):
    """total + terms[0] + terms[1] + ..., in this order."""
    return float(np.cumsum(np.concatenate([[total], terms]))[-1])
