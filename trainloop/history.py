"""What a run leaves behind: every step's numbers, every epoch's summary, and how it ended."""

import dataclasses

import numpy as np

from trainloop.status import Status


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended and what it saw.

    Attributes:
        status: a `Status`.
        message: its sentence.
        history: one array entry per step under each of "step", "epoch", "samples", "loss", "grad_norm" and
            every scalar of the method's state. All arrays are equally long, so
            `pandas.DataFrame(result.history)` works. Steps and epochs count from 1. Losses and gradients belong
            to the weights *before* the step.
        epochs: the same with one entry per finished epoch: "epoch", "step", "seconds", "loss", the metrics,
            and with validation data "val_loss" and the metrics under "val_".
        step: steps the optimizer has taken in its life.
        seconds: wall-clock seconds of this run.
        evaluations: how often the objective and its gradient were evaluated in this run, by kind.
    """

    status: Status
    message: str
    history: dict
    epochs: dict
    step: int
    seconds: float
    evaluations: dict


class Recorder:
    """Collects blocks of steps and epochs while a run goes on."""

    def __init__(self):
        self._blocks, self._epochs = [], []

    def add_block(self, logs):
        """Keep the arrays of one block; every block has the same names."""
        self._blocks.append(logs)

    def add_epoch(self, summary):
        """Keep the numbers of one epoch."""
        self._epochs.append(summary)

    def history(self):
        """All steps, one array per name."""
        names = self._blocks[0] if self._blocks else ()
        return {name: np.concatenate([block[name] for block in self._blocks]) for name in names}

    def epochs(self):
        """All epochs, one array per name."""
        names = self._epochs[0] if self._epochs else ()
        return {name: np.array([epoch[name] for epoch in self._epochs]) for name in names}

    def last_finite_loss(self):
        """The newest finite loss, or None."""
        for block in reversed(self._blocks):
            finite = block["loss"][np.isfinite(block["loss"])]
            if finite.size:
                return float(finite[-1])
        return None

    def epoch_loss(self, epoch):
        """Mean loss over the samples of an epoch, as far as this run has seen it."""
        losses, samples = [], []
        for block in reversed(self._blocks):
            if block["epoch"][0] != epoch:
                break
            losses.append(block["loss"])
            samples.append(block["samples"])
        return float(np.average(np.concatenate(losses), weights=np.concatenate(samples)))
