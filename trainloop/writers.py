"""Logs that go to files while a run goes on."""

import json
import math
import os

import numpy as np

from trainloop import durable
from trainloop.hooks import Hook


class MetricsFile(Hook):
    """Every step and every epoch as one line of JSON, written after each block, so that a cut off run keeps its log.

        {"kind": "step", "step": 1, "epoch": 1, "samples": 64, "loss": 2.31, "grad_norm": 0.8, ...}
        {"kind": "epoch", "epoch": 1, "step": 23, "seconds": 1.7, "loss": 2.1, "val_accuracy": 0.4, ...}

    Numbers that JSON does not have (NaN, infinities) are null.

    A run that is resumed goes on in the same file, cut to the length it had when the checkpoint was written.

    Args:
        path: the file, which must not exist yet.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self._file, self._mode = None, "xb"

    def on_start(self, loop):
        if self._file is None:
            self._open()

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
            self._file, self._mode = None, "r+b"

    def state(self):
        if self._file is not None:
            durable.sync(self._file)
        return {"bytes": self._length()}

    def load_state(self, state):
        """Cut the file to the length it had.

        Raises:
            ValueError: it is shorter.
        """
        length = self._length()
        if length < state["bytes"]:
            raise ValueError(
                f"{self.path} has {length} bytes, but had {state['bytes']} when the checkpoint was written; it belongs "
                "to another run, or was cut: put it back, or begin a new run"
            )
        self._mode = "r+b"
        if self._file is None:
            os.truncate(self.path, state["bytes"])
        else:
            self._file.truncate(state["bytes"])
            self._file.seek(0, os.SEEK_END)

    def _length(self):
        if self._file is not None:
            self._file.flush()
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def _open(self):
        self._file = open(self.path, self._mode)  # noqa: SIM115 (closed in on_end)
        self._file.seek(0, os.SEEK_END)

    def _write(self, record):
        line = json.dumps({name: _plain(value) for name, value in record.items()}) + "\n"
        self._file.write(line.encode())


def read_metrics(path):
    """What a `MetricsFile` holds, as (history, epochs) of a `RunResult`. Null becomes NaN.

    A last line that was cut off is left out, as a process leaves it that was killed.
    """
    records = {"step": [], "epoch": []}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                record = json.loads(line)
                records[record.pop("kind")].append(record)
    return tuple(
        {name: np.array([np.nan if r[name] is None else r[name] for r in rows]) for name in (rows[0] if rows else ())}
        for rows in records.values()
    )


def _plain(value):
    """A JSON value with the digits the number has in its own precision."""
    if isinstance(value, (np.floating, float)):
        return float(str(value)) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
