"""Reads what `MetricsFile` has written: a run that is over, failed, or still going on."""

import dataclasses
import json

import numpy as np


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


def read_run_log(path):
    """The `RunLog` of a file. A last line that was cut off is left out, as a process leaves it that was killed.

    Raises:
        ValueError: another line is not what `MetricsFile` writes.
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
