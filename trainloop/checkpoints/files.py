"""Checkpoints on the disk: a folder that a text editor and NumPy can read.

    step-00000500/
        arrays.npz      numpy.load reads it: one array per variable, by name
        meta.json       everything else: where the run was, and what it was a run of
    step-00001000/
        ...

It is written array after array, so a matrix in sixteen panels takes a sixteenth of its memory once more. meta.json has
a checksum of itself and one of arrays.npz, which binds the two. Both are compared, byte for byte, before a single
number is used, so that damage is found in time to take another checkpoint. Version 0.1 did not bind them: there the
parts of arrays.npz are compared with the checksums of the zip file (CRC-32).

Damage is what no second try would read: a file that is missing, cut off or changed, or no file at all. An error of
the moment (too many open files, a disk that does not answer, no permission) says nothing about the checkpoint. It is
raised.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import shutil
import zipfile

import numpy as np
import tensorflow as tf

from trainloop import files
from trainloop.checkpoints import record

FORMAT = 1

# What opening a file raises where there is none: of all errors of the system the only ones that will be the same again.
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DamagedCheckpointError(ValueError):
    """A checkpoint that was not read, because it is not what was written."""


def write(path, arrays, meta):
    """Write a checkpoint.

    Args:
        path: the folder; one that is there is replaced.
        arrays: dict by name of variables, tensors or NumPy arrays; each is converted when its turn comes.
        meta: dict of what JSON knows, NaN and infinities included.

    Raises:
        OSError: it cannot be written. Then what was there still is.
        TypeError: there is something in meta that JSON does not know. Then nothing is there either.
    """
    # The checksum is that of what will be read: JSON makes strings of keys and lists of tuples.
    meta = json.loads(json.dumps({"format": FORMAT, **meta}))
    with files.new_folder(path) as folder:
        with open(folder / "arrays.npz", "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as parts:
                for name, array in arrays.items():
                    _write_array(parts, name, array)
            files.sync(file)
        with open(folder / "arrays.npz", "rb") as file:
            bound = {**meta, "arrays": _identity(file)}
        with open(folder / "meta.json", "x", encoding="utf-8", newline="") as file:
            file.write(_text(bound))
            files.sync(file)


class Saved:
    """A checkpoint that was written, opened for reading. Use it in a `with` statement.

    Attributes:
        path: its folder.
        meta: the dict that was written.
        bound: whether meta.json says which arrays.npz belongs to it; version 0.1 did not write that.

    Raises:
        DamagedCheckpointError: a file is missing, cut off or changed; says which.
        ValueError: a later version of this package has written it.
        OSError: it cannot be read now.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.meta = _read_meta(self.path / "meta.json")
        if self.meta.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format {self.meta.get('format')}, this version of trainloop reads format {FORMAT}; "
                f"read it with trainloop {self.meta.get('versions', {}).get('trainloop', 'of that format')}"
            )
        expected = self.meta.pop("arrays", None)
        self.bound = expected is not None
        self._file, self._parts, self._headers = _open_arrays(self.path / "arrays.npz", expected)
        self._names = {_plain(part): part for part in self._headers}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Close the file of arrays."""
        self._parts.close()
        self._file.close()

    @property
    def names(self):
        """Of the arrays, in the order in which they were written."""
        return list(self._names)

    def shape(self, name):
        """The shape of an array, which is not read for it."""
        return self._headers[self._names[name]]

    def read(self, name):
        """An array."""
        with self._parts.open(self._names[name]) as part:
            array = np.lib.format.read_array(part, allow_pickle=False)
        dtype = _dtype_behind(self._names[name])
        return array if dtype is None else array.view(dtype)


def _write_array(parts, name, array):
    array = array.numpy() if hasattr(array, "numpy") else np.asarray(array)
    if array.dtype.kind == "V":  # bfloat16 and its kind, which NumPy's format does not know
        name, array = f"{name}:{array.dtype.name}", array.view(f"uint{8 * array.dtype.itemsize}")
    with parts.open(f"{name}.npy", "w", force_zip64=True) as part:
        # As numpy.lib.format.write_array, which copies every piece once more.
        array = np.asarray(array, order="C")
        np.lib.format.write_array_header_1_0(part, np.lib.format.header_data_from_array_1_0(array))
        part.write(array.reshape(-1).view(np.uint8).data)


def _plain(part):
    return part.removesuffix(".npy").partition(":")[0]


def _dtype_behind(part):
    """Of bfloat16 and its kind, from the name of a part; None for the others."""
    _, _, dtype = part.removesuffix(".npy").partition(":")
    return tf.as_dtype(dtype).as_numpy_dtype if dtype else None


def _identity(file):
    """What tells the file of arrays from every other one: its length and SHA-256."""
    file.seek(0)
    digest, length = hashlib.sha256(), 0
    while piece := file.read(2**20):
        digest.update(piece)
        length += len(piece)
    return {"bytes": length, "sha256": digest.hexdigest()}


def _text(meta):
    """All of meta.json: a checksum of the content is its last entry."""
    checksum = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    return json.dumps({**meta, "sha256": checksum}, indent=1) + "\n"


def _read_meta(path):
    """What was written, if the file is that to the last byte."""
    with _damage_named(path), files.open_file(path) as file:
        text = file.read().decode("utf-8-sig").replace("\r\n", "\n")
        meta = json.loads(text)
        meta.pop("sha256")
        same = _text(meta) == text
    if not same:
        raise DamagedCheckpointError(f"{path} has changed since it was written: its checksum does not agree")
    return meta


def _open_arrays(path, expected):
    """(open file, the same as a zip file, shapes by part), all of which was compared with its checksum.

    Args:
        expected: the `_identity` of the file; None where it is not known.
    """
    with _damage_named(path):
        file = files.open_file(path)
    try:
        if expected is not None and (found := _identity(file)) != expected:
            cut = ": it is cut off" if found["bytes"] < expected["bytes"] else ""
            raise DamagedCheckpointError(
                f"{path} has changed since it was written, or belongs to another checkpoint{cut}; its checksum is not "
                "that in meta.json"
            )
        with _damage_named(path):
            parts = zipfile.ZipFile(file)
            broken = parts.testzip() if expected is None else None
            shapes = {part.filename: _shape_of(parts, part) for part in parts.infolist()}
        if broken is not None:
            raise DamagedCheckpointError(
                f"{path} has changed since it was written: {broken} does not agree with its checksum"
            )
    except BaseException:
        file.close()
        raise
    return file, parts, shapes


def _shape_of(parts, part):
    """The shape of an array in a zip file, after making sure that it is as long as its header says."""
    with parts.open(part) as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
        header = file.tell()
    kept = _dtype_behind(part.filename)
    same_size = kept is None or np.dtype(kept).itemsize == dtype.itemsize
    if dtype.hasobject or not same_size or header + math.prod(shape) * dtype.itemsize != part.file_size:
        raise ValueError(f"{part.filename} is not as long as its header says")
    return shape


@contextlib.contextmanager
def _damage_named(path):
    """Inside, what is wrong with a file's content is a `DamagedCheckpointError`; an error of the moment says so."""
    try:
        yield
    except (DamagedCheckpointError, MemoryError):
        raise
    except Exception as error:
        no_file = isinstance(error, _NO_FILE) or getattr(error, "errno", None) == errno.EINVAL
        if isinstance(error, OSError) and not no_file:
            why = f"{error.strerror or error}; nothing was removed, so try again when that is over"
            raise OSError(error.errno, why, str(path)) from error
        raise DamagedCheckpointError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


_LOG = logging.getLogger("trainloop")
_FILES = ("arrays.npz", "meta.json")
_NAME = re.compile(r"step-(\d{8,18})")
_ASIDE = re.compile(r"damaged-step-\d{8,18}(-\d+)?")


class CheckpointFolder:
    """A folder of checkpoints. It need not exist before the first is written.

    Only what bears the name of a checkpoint is ever looked at, moved or removed.

    Args:
        path: of the folder. Nothing else should be kept there.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        # Steps of those that were written, or read from end to end, by this object; and of those that could not be.
        self._intact, self._unread = set(), set()

    def steps(self):
        """Steps of the checkpoints that are there, damaged ones included, in ascending order.

        Raises:
            OSError: the folder cannot be read now.
        """
        names = {name.removeprefix(files.REPLACED) for name in self._listed()}
        matches = filter(None, map(_NAME.fullmatch, names))
        return sorted(int(match[1]) for match in matches if match[0] == self._named(int(match[1])).name)

    def write(self, step, arrays, meta):
        """Write the checkpoint of a step.

        Raises:
            OSError: it cannot be written; those that were there still are.
        """
        if files.is_there(self._of(step)) and not files.has_only(self._of(step), _FILES):
            self._set_aside(step)
        write(self._named(step), arrays, meta)
        self._intact.add(step)
        self._unread.discard(step)

    def newest(self):
        """The newest checkpoint that is not damaged, opened, or None if there is none.

        Damaged ones are named in a warning of the log.

        Raises:
            DamagedCheckpointError: there are checkpoints, and all are damaged.
            OSError: one cannot be read now, and may be intact.
            ValueError: a later version of this package has written it.
        """
        steps, first = self.steps(), None
        for step in reversed(steps):
            try:
                saved = self._opened(step)
            except DamagedCheckpointError as error:
                _LOG.warning("a damaged checkpoint is not used: %s", error)
                first = first or error
                continue
            if not saved.bound:
                _LOG.warning(
                    "%s was written by a version that did not bind meta.json and arrays.npz to each other: whether "
                    "they belong together is not known",
                    saved.path,
                )
            return saved
        if first is not None:
            raise DamagedCheckpointError(
                f"all checkpoints in {self.path} are damaged, nothing was removed: {first}. Put an intact one back; to "
                "begin anew on purpose, give another folder or move this one away"
            )
        return None

    def prune(self, keep, best=None):
        """Remove all but the last `keep` checkpoints and the one of step `best`.

        One that cannot be read is left where it is, and is none of those that are kept.
        """
        readable = [step for step in self.steps() if step not in self._unread]
        for step in readable[:-keep]:
            if step != best and self._is_intact(step) and files.has_only(self._of(step), _FILES):
                files.remove_folder(self._of(step))
                self._intact.discard(step)

    def remove_all(self):
        """Remove every checkpoint, also damaged and unfinished ones, and the folder if nothing else is in it.

        Files of others in one are set aside.
        """
        self._tidy_up()
        for step in self.steps():
            if files.has_only(self._of(step), _FILES):
                files.remove_folder(self._of(step))
            else:
                self._set_aside(step)
        for path in [self.path / name for name in self._listed() if _ASIDE.fullmatch(name)]:
            if files.has_only(path, _FILES):
                files.remove_folder(path)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def begin(self, step):
        """Make the folder one of a run that stands at a step.

        What processes that were killed have left unfinished is removed. A damaged checkpoint behind the one that the
        run continues from is set aside: it gets a name that is no longer read.

        Raises:
            ValueError: there is a checkpoint of a later step, so the folder belongs to another run; or it is a file.
            OSError: one cannot be read now, and may be intact.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder for checkpoints")
        steps = self.steps()
        for later in [found for found in steps if found > step]:
            try:
                self._opened(later).close()
            except DamagedCheckpointError as error:
                if step not in steps:
                    raise self._of_another_run(later, step, f", damaged ({error}),") from error
                self._set_aside(later)
            else:
                raise self._of_another_run(later, step)
        self._tidy_up()

    def _of_another_run(self, later, step, how=""):
        return ValueError(
            f"{self.path} holds a checkpoint of step {later}{how}, this run stands at step {step}; continue the run it "
            "belongs to with loop.restore, or give another folder"
        )

    def _opened(self, step):
        """A checkpoint, opened, that is one in every respect. Remembers whether it could be."""
        try:
            saved = Saved(self._of(step))
            try:
                record.check(step, saved.meta)
            except ValueError as error:
                saved.close()
                raise DamagedCheckpointError(f"{saved.path / 'meta.json'} is no record of a run: {error}") from error
        except (OSError, ValueError):
            self._unread.add(step)
            raise
        self._unread.discard(step)
        self._intact.add(step)
        return saved

    def _is_intact(self, step):
        if step not in self._intact:
            try:
                self._opened(step).close()
            except (OSError, ValueError) as error:
                _LOG.warning("a checkpoint that cannot be read is left where it is: %s", error)
        return step in self._intact

    def _set_aside(self, step):
        path, number = self.path / f"damaged-{self._named(step).name}", 1
        while files.is_there(path):
            number += 1
            path = self.path / f"damaged-{self._named(step).name}-{number}"
        os.rename(self._of(step), path)
        _LOG.warning("what could not be used as a checkpoint is called %s now; remove it when you do not need it", path)

    def _tidy_up(self):
        """Remove what killed processes left unfinished; what was about to be replaced gets its name back."""
        if not files.is_there(self.path):
            return
        for path in list(files.unfinished_in(self.path, _NAME)):
            shutil.rmtree(path, ignore_errors=True)
        for step in self.steps():
            before = files.replaced(self._named(step))
            if self._of(step) == before:
                os.rename(before, self._named(step))
            elif files.is_there(before):
                shutil.rmtree(before, ignore_errors=True)

    def _listed(self):
        try:
            return os.listdir(self.path)
        except _NO_FILE:
            return []

    def _named(self, step):
        return self.path / f"step-{step:08d}"

    def _of(self, step):
        """Where the checkpoint of a step is: under its name, or, where a process was killed, under its other one."""
        path = self._named(step)
        before = files.replaced(path)
        return before if files.is_there(before) and not files.is_there(path) else path
