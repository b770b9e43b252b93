"""Logs that go to files while a run goes on."""

import json
import math

import numpy as np

from trainloop.hooks import Hook


class MetricsFile(Hook):
    """Every step and every epoch as one line of JSON, written after each block, so that a cut off run keeps its log.

        {"kind": "step", "step": 1, "epoch": 1, "samples": 64, "loss": 2.31, "grad_norm": 0.8, ...}
        {"kind": "epoch", "epoch": 1, "step": 23, "seconds": 1.7, "loss": 2.1, "val_accuracy": 0.4, ...}

    Numbers that JSON does not have (NaN, infinities) are null.

    Args:
        path: the file, which must not exist yet.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self._file = None

    def on_start(self, loop):
        if self._file is None:
            self._file = open(self.path, "x", encoding="utf-8")  # noqa: SIM115 (closed in on_end)

    def on_block(self, progress):
        names = list(progress.logs)
        for numbers in zip(*progress.logs.values(), strict=True):
            self._write({"kind": "step", **dict(zip(names, numbers, strict=True))})
        self._file.flush()

    def on_epoch(self, progress, summary):
        self._write({"kind": "epoch", **summary})
        self._file.flush()

    def on_end(self, result):
        if self._file is not None:
            self._file.close()

    def _write(self, record):
        self._file.write(json.dumps({name: _plain(value) for name, value in record.items()}) + "\n")


def _plain(value):
    """A JSON value with the digits the number has in its own precision."""
    if isinstance(value, (np.floating, float)):
        return float(str(value)) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
