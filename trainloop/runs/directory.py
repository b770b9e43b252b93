"""The files of one run in its folder, and how they are written.

config.json     everything needed to repeat it
metrics.jsonl   every step and every epoch
checkpoints     from which it continues after an interruption
tensorboard     metrics.jsonl for TensorBoard, on request
curves.png      metrics.jsonl to look at
model.keras     the model as it was left; as long as it is not there whole, the run has not come to its end
lock            held by the process that works here
"""

import abc
import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import pathlib
import re
import shlex
import sys
import zipfile
from collections.abc import Callable
from typing import Any

from trainloop import files
from trainloop.checkpoints.files import CheckpointFolder, DamagedCheckpointError
from trainloop.files import RunLock
from trainloop.hooks.metrics_file import read_run_log
from trainloop.hooks.tensorboard import event_files
from trainloop.runs.settings import differences
from trainloop.types import Path
from trainloop.versions import versions

_OF_A_RUN = re.compile(r"config\.json|curves\.png|model\.keras")


class RunFolder(abc.ABC):
    """Where the files of a run are, and the right to have them, as a process sees it.

    Args:
        path: of the folder.

    Attributes:
        path: of the folder, a `pathlib.Path`; `config`, `metrics`, `curves`, `model`, `checkpoints` and `tensorboard`
            are those of what is in it.
    """

    NAMES = ("config.json", "metrics.jsonl", "curves.png", "model.keras")
    FOLDERS = ("checkpoints", "tensorboard")

    def __init__(self, path: Path) -> None:
        self.path = pathlib.Path(path)
        self.config, self.metrics, self.curves, self.model = (self.path / name for name in self.NAMES)
        self.checkpoints, self.tensorboard = (self.path / name for name in self.FOLDERS)

    @abc.abstractmethod
    def begin(self, config: dict[str, Any]) -> None:
        """Make it the folder of a run that begins.

        Args:
            config: everything needed to repeat it, JSON-able.
        """

    @abc.abstractmethod
    def resume(self, config: dict[str, Any], restore: Callable[[pathlib.Path], int | None]) -> int | None:
        """Continue the run that is there, or begin one where none is or where it was interrupted before it was saved.

        Args:
            config: as for `begin`; it must be that of the run, except for `MAY_CHANGE`.
            restore: function of the folder of checkpoints, `TrainLoop.restore`.

        Returns:
            The step it continues from, None where it begins.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Let other runs have the folder."""


class RunDirectory(RunFolder):
    """A folder that holds at most one run. Nothing is written before `begin`.

    Nothing is removed but what a run writes, by the names that it gives its files, and only with `overwrite`, or where
    config.json says that it is this run.

    Args:
        path: made by `begin` if it does not exist.
        overwrite: a run that is there already may be replaced.
        resume: it may be continued.

    Raises:
        ValueError: it holds a run and neither is set, another process is at work there, or it is a file.
        OSError: what is there cannot be found out now.
    """

    def __init__(self, path, overwrite=False, resume=False):
        super().__init__(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{path} is a file; give a folder for the run")
        self._lock = RunLock(self.path / "lock") if (self.path / "lock").exists() else None
        self._overwrite = overwrite
        if not resume:
            self._check_no_other_run()

    def begin(self, config):
        """Make the folder, remove the files of the run that is overwritten, and write config.json.

        Args:
            config: JSON-able dict; the versions of everything are added to it.

        Raises:
            ValueError: another process has begun a run there meanwhile.
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock or RunLock(self.path / "lock")
        self._check_no_other_run()  # which may have begun and ended since this object was made
        self._begin_anew(config)

    def _begin_anew(self, config):
        remove_files(self.path)
        self._write(config)

    def _check_no_other_run(self):
        present = self._present()
        if present and not self._overwrite:
            self.release()
            goes_on = files.is_there(self.config) and not self._came_to_its_end()
            ways = "it did not come to its end, so continue it with --resume, or " if goes_on else ""
            raise ValueError(
                f"{self.path} already holds a run ({', '.join(present)}); {ways}give another folder, or --overwrite"
            )

    def resume(self, config, restore):
        """See `RunFolder.resume`.

        Raises:
            ValueError: another configuration, no checkpoint that is not damaged, or a run that has come to its end
                and has none.
            OSError: see `begin`.
        """
        try:
            return self._resume(config, restore)
        except (ValueError, OSError):
            self.release()
            raise

    def _resume(self, config, restore):
        if files.is_there(self.config):
            self._lock = self._lock or RunLock(self.path / "lock")
        if not self.check(config):
            return self.begin(config)
        try:
            step = restore(self.checkpoints)
        except DamagedCheckpointError as error:
            raise ValueError(f"{error}, or begin again with --overwrite") from error
        if step is None:
            if files.is_there(self.model):
                how = "came to its end" if self._came_to_its_end() else "has a damaged model.keras"
                raise ValueError(
                    f"{self.path} is a run that {how}, and has no checkpoints to resume from; give another "
                    "folder, or begin again with --overwrite"
                )
            return self._begin_anew(config)
        self._write(config)
        return step

    def check(self, config):
        """Whether there is a run to continue. Raises for another configuration, see `resume`, and writes nothing."""
        if not files.is_there(self.config):
            if present := self._present():
                raise ValueError(
                    f"{self.path} has {', '.join(present)} but no config.json to compare with; put it back, give "
                    "another folder, or begin again with --overwrite"
                )
            return False
        try:
            differing = differences(files.read_json(self.config), json.loads(json.dumps(config)))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.config} is damaged; put it back, or begin again with --overwrite") from error
        if differing:
            raise ValueError(
                f"{self.path} is a run with other settings: {'; '.join(differing)}. Use the same, or another folder"
            )
        return True

    def files(self, tensorboard=False):
        """Names of what a run leaves in the folder.

        Args:
            tensorboard: whether it writes that one too.
        """
        folders = (self.checkpoints, self.tensorboard) if tensorboard else (self.checkpoints,)
        return [*self.NAMES, *(folder.name for folder in folders), "lock"]

    def release(self):
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _present(self):
        """Names in the folder that are those of a run."""
        return [name for name in (*self.NAMES, *self.FOLDERS) if files.is_there(self.path / name)]

    def _came_to_its_end(self):
        """Whether there is a model, and all of it: half a file, as version 0.1 could leave it, is no end."""
        return self.model.is_file() and zipfile.is_zipfile(self.model)

    def _write(self, config):
        files.replace_text(self.config, json.dumps({**config, "versions": versions()}, indent=2) + "\n")


def remove_files(path):
    """Remove what a run has written into its folder, but for the lock; nothing else in there.

    Args:
        path: of the folder, which must be there.

    Raises:
        OSError: something cannot be removed.
    """
    path = pathlib.Path(path)
    for file in [*map(path.joinpath, RunDirectory.NAMES), *files.unfinished_in(path, _OF_A_RUN)]:
        file.unlink(missing_ok=True)
    checkpoints, tensorboard = map(path.joinpath, RunDirectory.FOLDERS)
    CheckpointFolder(checkpoints).remove_all()
    for file in event_files(tensorboard):
        file.unlink()
    with contextlib.suppress(OSError):  # it is not there, or others have files in it
        tensorboard.rmdir()


class UnwrittenDirectory(RunFolder):
    """The folder of a run for workers that are not the first: they read its checkpoints and write nothing."""

    def begin(self, config):
        """Nothing."""

    def resume(self, config, restore):
        del config
        return restore(self.checkpoints)

    def release(self):
        """Nothing."""


def fresh_path(*parts, root="runs"):
    """`runs/20250131-235959-lenet5-digits-adam`: a folder for a run, named by the time and what it is a run of."""
    named = "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in os.path.basename(part)) for part in parts)
    path = f"{root}/{datetime.datetime.now():%Y%m%d-%H%M%S}-{named}"
    others = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))  # of a clock that was set back
    return next(f"{path}{other}" for other in others if not files.is_there(f"{path}{other}"))


def interpreter():
    """The Python that runs, as a user in this folder would type it."""
    here = os.path.relpath(sys.executable)
    return sys.executable if here.startswith("..") else here


def _as_typed(program, *arguments):
    """A command as a user in this folder would type it: a Python file, `python -m trainloop`, or an executable."""
    if os.path.basename(program) == "__main__.py":
        return [interpreter(), "-m", "trainloop", *arguments]
    if program.endswith(".py"):
        return [interpreter(), program, *arguments]
    here = os.path.relpath(program)
    return [os.path.basename(program) if here.startswith("..") else here, *arguments]


def command_to_resume(arguments, path):
    """The command that continues a run in a folder.

    Args:
        arguments: `sys.argv` of the command that began it.
        path: of the folder.
    """
    given = [argument for argument in arguments if argument not in ("--resume", "--overwrite")]
    return f"{command_in_folder(given, '--run-dir', path)} --resume"


def command_to_repeat(arguments, config):
    """The command that repeats a run from its config.json, whatever began it.

    Args:
        arguments: `sys.argv` of the command that did it.
        config: path of the file.
    """
    program = arguments[:2] if arguments[1:2] == ["train"] else arguments[:1]
    return shlex.join([*_as_typed(*program), "--config", str(config)])


def command_in_folder(arguments, option, path):
    """A command that names its folder by an option, also where it chose that itself.

    Args:
        arguments: `sys.argv`.
        option: such as "--out".
        path: of the folder.
    """
    named = any(argument.startswith(option) for argument in arguments)
    return shlex.join([*_as_typed(*arguments), *([] if named else [option, str(path)])])


def write_results(directory, loop, result, title, resumed):
    """The model as it is, and the curves. A file that cannot be written costs none of the others.

    Args:
        directory: a `RunDirectory` whose metrics file is complete.
        loop: the `TrainLoop`.
        result: its `RunResult`.
        title: above the curves.
        resumed: whether the result has only the steps of the last process.

    Returns:
        A message about what is missing, because it cannot be written or because Matplotlib is not installed; else None.
    """
    missing = []
    with _costing_only(directory.model, missing):
        directory.path.mkdir(parents=True, exist_ok=True)
        with files.replacing(directory.model) as path:
            loop.model.save(path)
    try:
        log = read_run_log(directory.metrics) if resumed else None
    except (OSError, ValueError) as error:
        missing.append(f"{directory.curves.name} has the last process only: {error}")
        log = None
    if log is not None:
        result = dataclasses.replace(result, history=log.history, epochs=log.epochs)
    with _costing_only(directory.curves, missing), files.replacing(directory.curves) as path:
        result.plot(path, title)
    gone = [path for path in (directory.config, directory.metrics) if not path.exists()]
    return "; ".join([*missing, *(f"no {path.name}: it was removed" for path in gone)]) or None


@contextlib.contextmanager
def _costing_only(path, missing):
    """What keeps a file from being written becomes a message."""
    try:
        yield
    except (OSError, ImportError) as error:
        missing.append(f"no {path.name}: {error}")
