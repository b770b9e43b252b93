"""Logs that go to files while a run goes on."""

import json
import os
from typing import TYPE_CHECKING, Any

from trainloop import durable
from trainloop.history import RunResult
from trainloop.hooks import Hook, Progress
from trainloop.json_values import plain
from trainloop.peak_memory import peak_memory
from trainloop.typing import Path

if TYPE_CHECKING:
    from trainloop.loop import TrainLoop


class MetricsFile(Hook):
    """Every step and every epoch as one line of JSON, written after each block, so that a cut off run keeps its log.

        {"kind": "step", "step": 1, "epoch": 1, "samples": 64, "loss": 2.31, "grad_norm": 0.8, ...}
        {"kind": "epoch", "epoch": 1, "step": 23, "seconds": 1.7, "loss": 2.1, "val_accuracy": 0.4, ...}
        {"kind": "end", "step": 23, "status": "FINISHED", "message": "...", "seconds": 1.7, "evaluations/f": 23, ...,
         "peak_memory": 612000000}

    Numbers that JSON does not have (NaN, infinities) are null. A run that was killed has no end. Memory is that of the
    process, in bytes. `run_log.read_run_log` reads the file.

    A run that is resumed goes on in the same file, cut to the length it had when the checkpoint was written.

    Args:
        path: the file, which must not exist yet.

    Example:
        >>> loop = TrainLoop(model, Adam(), loss, hooks=[MetricsFile("metrics.jsonl")])
        >>> result = loop.run((x, y), epochs=2)
        >>> with open("metrics.jsonl") as file:
        ...     len(file.readlines())  # two steps, two epochs, the end
        5
    """

    chief_only = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file, self._mode = None, "xb"

    def on_start(self, loop: "TrainLoop") -> None:
        if self._file is None:
            self._open()

    def on_block(self, progress: Progress) -> None:
        names = list(progress.logs)
        for numbers in zip(*progress.logs.values(), strict=True):
            self._write({"kind": "step", **dict(zip(names, numbers, strict=True))})
        self._file.flush()

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        self._write({"kind": "epoch", **summary})
        self._file.flush()

    def on_end(self, result: RunResult) -> None:
        if self._file is None:
            return
        try:
            self._write({"kind": "end", **_ending(result)})
        finally:
            # In this order, because closing writes what is left and may fail too: the next run has to open it again.
            file, self._file, self._mode = self._file, None, "r+b"
            file.close()

    def state(self) -> dict[str, Any]:
        if self._file is not None:
            durable.sync(self._file)
        return {"bytes": self._length()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Cut the file to the length it had when `state` returned this dict.

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
        self._file.write(_line(record))


def append_test(path, measured):
    """Add what was measured on the test set after a run: `{"kind": "test", "loss": 0.1, "accuracy": 0.97}`."""
    with open(path, "ab") as file:
        file.write(_line({"kind": "test", **measured}))


def _ending(result):
    counts = {f"evaluations/{kind}": count for kind, count in result.evaluations.items()}
    how = {"step": result.step, "status": result.status.name, "message": result.message, "seconds": result.seconds}
    return {**how, **counts, "peak_memory": peak_memory()}


def _line(record):
    return (json.dumps({name: plain(value) for name, value in record.items()}) + "\n").encode()
