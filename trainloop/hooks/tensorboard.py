"""Logs that TensorBoard shows, written without it.

An event file is a TFRecord file of protocol buffers, and TensorFlow has both. The functions of `tf.summary` need
TensorBoard to be installed, and a call for every number.

Such a file can be begun but not continued. So a resumed run cuts its files to the lengths they had, and begins another
one, which says from which step on it counts: a TensorBoard that is running and has read further forgets the rest.
"""

import contextlib
import errno
import os
import pathlib
import re
import time
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import files
from trainloop.columns import BOOKKEEPING
from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.hooks.outage import Outage
from trainloop.results import RunResult
from trainloop.types import Path

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.trainloop")


def event_files(folder):
    """Paths of the files of this module in a folder, in the order in which TensorBoard reads them, that of their names.

    Raises:
        OSError: the folder cannot be read now.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [pathlib.Path(folder, name) for name in sorted(filter(_NAME.fullmatch, names))]


class TensorBoardFile(Hook):
    """Every step and every epoch as scalars for TensorBoard, over the number of the step.

        train/loss, train/grad_norm, train/radius, ...    every step: loss, gradient norm, scalars of the state
        epoch/seconds, epoch/loss, epoch/val_loss, ...    every epoch: its entry in `RunResult.epochs`

    The steps of a block are written together when it is over. Numbers are float32, as TensorBoard has them.

    A run that is resumed shows every step once. A new run in a folder that has one takes its place. What cannot be
    written (a full disk) is missing in the curves; a warning says so once, and each block is tried again.

    Args:
        folder: for event files, made when a run starts.

    Examples:
        >>> loop = TrainLoop(model, TestGD(), loss, hooks=[TensorBoardFile("runs/mine/tensorboard")])
        >>> # then: tensorboard --logdir runs
    """

    chief_only = True
    only_records = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder)
        self._writer, self._path = None, None
        self._whole, self._lost = 0, 0  # bytes of whole records in the file, and steps that are in none
        self._outage = Outage(str(self.folder))

    def on_start(self, loop: LoopProtocol) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def on_block(self, progress: Progress) -> None:
        logs = progress.logs
        self._try("train", logs["step"], {name: logs[name] for name in logs if name not in progress.measured})
        for name in progress.measured:
            at = ~np.isnan(logs[name])
            self._try("train", logs["step"][at], {name: logs[name][at]})

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        self._try("epoch", np.array([summary["step"]]), {name: [value] for name, value in summary.items()})

    def on_end(self, result: RunResult) -> None:
        self._close()
        self._outage.ended(f"{self._lost} steps and epochs" if self._lost else "")

    def state(self) -> dict[str, Any]:
        if self._writer is not None and self._path.exists():
            try:
                with open(self._path, "r+b") as file:
                    files.sync(file)
            except OSError as error:
                self._outage.began(error)
        return {"bytes": {path.name: path.stat().st_size for path in event_files(self.folder)}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Cut the files to the lengths they had when `state` returned this dict, and remove those that were not there.

        One that has got lost meanwhile is no reason not to go on: then the curves have a gap.
        """
        self._close()
        for path in event_files(self.folder):
            length = state["bytes"].get(path.name)
            if length is None:
                path.unlink()
            elif length < path.stat().st_size:
                os.truncate(path, length)

    def _try(self, group, steps, columns):
        """Write the numbers of some steps, if it can be done."""
        if not len(steps):
            return
        try:
            if self._writer is not None and not self._path.exists():
                raise FileNotFoundError(errno.ENOENT, "it is gone", str(self._path))
            if self._writer is None:
                self._begin_file(int(steps[0]))
            self._write(group, steps, columns)
            self._whole = self._path.stat().st_size
            self._outage.over()
        except (OSError, tf.errors.OpError) as error:
            self._outage.began(getattr(error, "message", error))
            self._lost += len(steps)
            self._give_up_file()

    def _give_up_file(self):
        """Leave the file with whole records only; the next try begins another one."""
        self._close()
        with contextlib.suppress(OSError):
            if self._whole:
                os.truncate(self._path, self._whole)
            else:
                self._path.unlink()

    def _begin_file(self, step):
        """A new file behind the others, which takes the place of all they have from this step on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        last = max((int(path.name.split(".")[3]) for path in event_files(self.folder)), default=0)
        self._path, self._whole = self.folder / f"events.out.tfevents.{last + 1:010d}.trainloop", 0
        self._writer = tf.io.TFRecordWriter(str(self._path))
        begins = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        for content in ({"file_version": "brain.Event:2"}, {"step": step, "session_log": begins}):
            self._writer.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())

    def _write(self, group, steps, columns):
        """One event for each step, with a number of every column. They reach the system together."""
        columns = {name: column for name, column in columns.items() if name not in BOOKKEEPING}
        summary = tf.compat.v1.Summary(value=[{"tag": f"{group}/{name}"} for name in columns])
        event = tf.compat.v1.Event(wall_time=time.time(), summary=summary)
        entries = list(event.summary.value)
        # One event is filled again and again, because making one takes three times as long as writing it.
        for step, *numbers in zip(steps, *columns.values(), strict=True):
            event.step = int(step)
            for entry, number in zip(entries, numbers, strict=True):
                entry.simple_value = number
            self._writer.write(event.SerializeToString())
        self._writer.flush()

    def _close(self):
        if self._writer is not None:
            with contextlib.suppress(OSError, tf.errors.OpError):
                self._writer.close()
            self._writer = None
