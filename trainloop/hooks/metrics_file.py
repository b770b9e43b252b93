"""metrics.jsonl: written while a run goes on (`MetricsFile`), and read (`read_run_log`)."""

import dataclasses
import json
import os
import sys
from typing import Any

import numpy as np

from trainloop import files
from trainloop.files import plain
from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.results import RunResult
from trainloop.types import Path


class MetricsFile(Hook):
    """Every step and every epoch as one line of JSON, written after each block, so that a cut off run keeps its log.

        {"kind": "step", "step": 1, "epoch": 1, "samples": 64, "loss": 2.31, "grad_norm": 0.8, ...}
        {"kind": "epoch", "epoch": 1, "step": 23, "seconds": 1.7, "loss": 2.1, "val_accuracy": 0.4, ...}
        {"kind": "end", "step": 23, "status": "FINISHED", "message": "...", "seconds": 1.7, "evaluations/f": 23, ...,
         "peak_memory": 612000000}

    Numbers that JSON does not have (NaN, infinities) are null. A run that was killed has no end. Memory is that of the
    process, in bytes. `read_run_log` reads the file.

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

    def on_start(self, loop: LoopProtocol) -> None:
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
            files.sync(self._file)
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


@dataclasses.dataclass(frozen=True)
class RunLog:
    """What a metrics.jsonl holds.

    Attributes:
        history, epochs: as in `RunResult`: dict of arrays, one entry per step and per epoch. Null is NaN.
        end: how it ended: the record of kind "end", None for a run that goes on or was killed.
        test: what was measured on the test set at the end: the record of kind "test", or None.
    """

    history: dict
    epochs: dict
    end: dict | None
    test: dict | None


def read_run_log(path: Path) -> RunLog:
    """The `RunLog` of a file. A last line that was cut off is left out, as a process leaves it that was killed.

    Args:
        path: of a metrics.jsonl.

    Raises:
        ValueError: another line is not what `MetricsFile` writes.

    Example:
        >>> result = TrainLoop(model, Adam(), loss, hooks=[MetricsFile("metrics.jsonl")]).run((x, y), epochs=2)
        >>> hooks.read_run_log("metrics.jsonl").epochs["epoch"].tolist()
        [1, 2]
    """
    records = {"step": [], "epoch": [], "end": [], "test": []}
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break
            try:
                record = json.loads(line)
                records[record.pop("kind")].append(record)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path} is damaged in line {number}; put it back, or do the run again") from error
    steps, epochs = (_columns(records[kind]) for kind in ("step", "epoch"))
    return RunLog(steps, epochs, *(records[kind][-1] if records[kind] else None for kind in ("end", "test")))


def _columns(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([np.nan if row.get(name) is None else row[name] for row in rows]) for name in names}


def peak_memory():
    """Bytes of resident memory at the highest; None on systems that do not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
