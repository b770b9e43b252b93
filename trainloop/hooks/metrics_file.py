"""metrics.jsonl: written during a run (`MetricsFile`), and read (`read_run_log`)."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import sys
from typing import Any

import numpy as np

from trainloop.files import plain
from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.hooks.patient_file import PatientFile, length_and_crc
from trainloop.results import RunResult
from trainloop.types import Path

_LOG = logging.getLogger("trainloop")


class MetricsFile(Hook):
    """Every step and every epoch as one line of JSON, written after each block, so that a cut off run keeps its log.

        {"kind": "step", "step": 1, "epoch": 1, "samples": 64, "loss": 2.31, "grad_norm": 0.8, ...}
        {"kind": "epoch", "epoch": 1, "step": 23, "seconds": 1.7, "loss": 2.1, "val_accuracy": 0.4, ...}
        {"kind": "end", "step": 23, "status": "FINISHED", "message": "...", "seconds": 1.7, "evaluations/f": 23, ...,
         "peak_memory": 612000000}

    Numbers that JSON does not have (NaN, infinities) are null. A run that was killed has no end. Memory is that of the
    process, in bytes. `read_run_log` reads the file.

    A run that is resumed continues the same file, cut to the length it had when the checkpoint was written. Lines of
    it that are damaged are named in a warning then, and blanked.

    Lines that cannot be written (a full disk) wait and are tried again with every block; a warning says so once, and at
    the end what is missing.

    Args:
        path: the file, which must not exist yet.

    Examples:
        >>> loop = TrainLoop(model, Adam(), loss, hooks=[MetricsFile("metrics.jsonl")])
        >>> result = loop.run((x, y), epochs=2)
        >>> with open("metrics.jsonl") as file:
        ...     len(file.readlines())  # two steps, two epochs, the end
        5
    """

    chief_only = True
    only_records = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file, self._is_new = PatientFile(path), True

    def on_start(self, loop: LoopProtocol) -> None:
        if not self._file.is_open:
            self._file.open(self._is_new)

    def on_block(self, progress: Progress) -> None:
        names = list(progress.logs)
        for numbers in zip(*progress.logs.values(), strict=True):
            self._write({"kind": "step", **dict(zip(names, numbers, strict=True))})
        self._file.flush()

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        self._write({"kind": "epoch", **summary})
        self._file.flush()

    def on_end(self, result: RunResult) -> None:
        if self._file.is_open:
            self._write({"kind": "end", **_ending(result)})
            self._file.close()
            self._is_new = False  # the next run has to open it again

    def state(self) -> dict[str, Any]:
        if self._file.is_open:
            self._file.sync()
        return {"bytes": self._file.length, "crc32": self._file.crc}

    def load_state(self, state: dict[str, Any]) -> None:
        """Cut the file to the length it had when `state` returned this dict, and look whether it is what was written.

        Raises:
            ValueError: it is shorter.
            OSError: it cannot be read or written.
        """
        if not self._file.is_open:
            self._file = PatientFile(self.path)
        if self._file.length < state["bytes"]:
            raise ValueError(
                f"{self.path} has {self._file.length} bytes, but had {state['bytes']} when the checkpoint was written; "
                "it belongs to another run, or was cut: put it back, or begin a new run"
            )
        self._file.cut(state["bytes"])
        if state.get("crc32") != self._file.crc:
            _mend(self.path, in_doubt="crc32" in state)
            self._file.cut(state["bytes"])
        self._is_new = False

    def _write(self, record):
        self._file.waiting.append(_line(record))


def _mend(path, in_doubt):
    """Blank the lines of a log that cannot be read, and say so. Their places stay as long as they were.

    Args:
        path: of the log.
        in_doubt: whether something in it is known to have changed.
    """
    damaged = 0
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        for number, place, line in _damaged_lines(file):
            file.seek(place)
            file.write(b" " * (len(line) - 1) + b"\n")
            file.seek(place + len(line))
            damaged += 1
            _LOG.warning("%s is damaged in line %d, which is left out: %.200r", path, number, line)
    if in_doubt and not damaged:
        _LOG.warning("%s has changed since the checkpoint was written: numbers in it may be wrong", path)


def _damaged_lines(file):
    """(number, place, line) of those that cannot be read."""
    number, place = 0, 0
    while line := file.readline():
        number += 1
        try:
            _record(line, first=number == 1)
        except ValueError:
            yield number, place, line
        place += len(line)


def append_test(path, measured):
    """Add what was measured on the test set after a run: `{"kind": "test", "loss": 0.1, "accuracy": 0.97}`.

    Raises:
        OSError: it cannot be written. Then the file is as before.
    """
    length, _ = length_and_crc(path)
    with open(path, "ab", buffering=0) as file:
        line = _line({"kind": "test", **measured})
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        except OSError:
            file.truncate(length)
            raise


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

    Examples:
        >>> result = TrainLoop(model, Adam(), loss, hooks=[MetricsFile("metrics.jsonl")]).run((x, y), epochs=2)
        >>> hooks.read_run_log("metrics.jsonl").epochs["epoch"].tolist()
        [1, 2]
    """
    records: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = _record(line, first=number == 1)
            except ValueError as error:
                raise ValueError(f"{path} is damaged in line {number}; put it back, or do the run again") from error
            if record is not None:
                records[record.pop("kind")].append(record)
    steps, epochs = (_columns(records[kind]) for kind in ("step", "epoch"))
    return RunLog(steps, epochs, *(records[kind][-1] if records[kind] else None for kind in ("end", "test")))


_KINDS = ("step", "epoch", "end", "test")


def _record(line, first=False):
    """The dict in a line; None for a line that `_mend` has blanked.

    Args:
        line: bytes with a newline at the end.
        first: whether it is the first one, which an editor may have put a byte order mark before.

    Raises:
        ValueError: it is not what `MetricsFile` writes.
    """
    text = line.decode("utf-8-sig" if first else "utf-8")
    if not text.endswith("\n"):
        raise ValueError("it is cut off")
    if len(text) > 1 and not text.strip(" \n"):
        return None
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested") from error
    if not isinstance(record, dict) or record.get("kind") not in _KINDS:
        raise ValueError("it is no record")
    numbered = record["kind"] in ("step", "epoch")
    if numbered and not all(value is None or isinstance(value, (int, float)) for value in _values(record)):
        raise ValueError("it has something else than numbers")
    return record


def _values(record):
    return [value for name, value in record.items() if name != "kind"]


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
