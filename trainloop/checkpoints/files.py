"""Checkpoints on the disk: one is a folder that anybody can read with a text editor and NumPy.

    step-00000500/
        arrays.npz      numpy.load reads it: one array per variable, by name
        meta.json       everything else: where the run was, and what it was a run of
    step-00001000/
        ...

It is written array after array, so a matrix in sixteen panels takes a sixteenth of its memory once more. The parts
of arrays.npz carry checksums of their own (CRC-32, as every zip file), meta.json has one inside. Both are compared
before a single number is used, so that damage is found in time to take another checkpoint.
"""

import hashlib
import json
import logging
import pathlib
import re
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from trainloop import files

FORMAT = 1


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
        text = json.dumps({**meta, "sha256": _checksum(meta)}, indent=1)
        with open(folder / "meta.json", "x", encoding="utf-8") as file:
            file.write(text + "\n")
            files.sync(file)


class Saved:
    """A checkpoint that was written, opened for reading. Use it in a `with` statement.

    Attributes:
        path: its folder.
        meta: the dict that was written.

    Raises:
        DamagedCheckpointError: a file is missing, cut off or changed; says which.
        ValueError: a later version of this package has written it.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.meta = _read_meta(self.path / "meta.json")
        if self.meta["format"] != FORMAT:
            raise ValueError(
                f"{path} has format {self.meta['format']}, this version of trainloop reads format {FORMAT}; "
                f"read it with trainloop {self.meta.get('versions', {}).get('trainloop', 'of that format')}"
            )
        self._parts = _open_arrays(self.path / "arrays.npz")
        self._names = {_plain(part): part for part in self._parts.namelist()}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Close the file of arrays."""
        self._parts.close()

    @property
    def names(self):
        """Of the arrays, in the order in which they were written."""
        return list(self._names)

    def shape(self, name):
        """The shape of an array, which is not read for it."""
        with self._parts.open(self._names[name]) as part:
            version = np.lib.format.read_magic(part)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            return header[version](part)[0]

    def read(self, name):
        """An array."""
        with self._parts.open(self._names[name]) as part:
            array = np.lib.format.read_array(part, allow_pickle=False)
        _, _, dtype = self._names[name].removesuffix(".npy").partition(":")
        return array.view(tf.as_dtype(dtype).as_numpy_dtype) if dtype else array


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


def _checksum(meta):
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _read_meta(path):
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        checksum = meta.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedCheckpointError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if checksum != _checksum(meta):
        raise DamagedCheckpointError(f"{path} has changed since it was written: its checksum does not agree")
    return meta


def _open_arrays(path):
    """The open zip file, every byte of which was compared with its checksum."""
    try:
        parts = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DamagedCheckpointError(f"{path} cannot be read ({error}); it may be cut off") from error
    try:
        broken = parts.testzip()
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        broken = str(error)
    if broken is not None:
        parts.close()
        raise DamagedCheckpointError(
            f"{path} has changed since it was written: {broken} does not agree with its checksum"
        )
    return parts


_LOG = logging.getLogger("trainloop")
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointFolder:
    """A folder of checkpoints. It need not exist before the first is written.

    Args:
        path: of the folder. Nothing else should be kept there.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def steps(self):
        """Steps of the checkpoints that are there, damaged ones included, in ascending order."""
        names = [found.name for found in self.path.glob("step-*")] if self.path.is_dir() else []
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def write(self, step, arrays, meta):
        """Write the checkpoint of a step.

        Raises:
            OSError: it cannot be written; those that were there still are.
        """
        write(self._of(step), arrays, meta)

    def newest(self):
        """The newest checkpoint that is not damaged, opened, or None if there is none.

        Damaged ones are named in a warning of the log.

        Raises:
            ValueError: a later version of this package has written it.
        """
        for step in reversed(self.steps()):
            try:
                return Saved(self._of(step))
            except DamagedCheckpointError as error:
                _LOG.warning("a damaged checkpoint is not used: %s", error)
        return None

    def prune(self, keep, best=None):
        """Remove all but the last `keep` checkpoints and the one of step `best`."""
        for step in self.steps()[:-keep]:
            if step != best:
                files.remove_folder(self._of(step))

    def begin(self, step):
        """Make the folder one of a run that stands at a step: what is damaged or unfinished behind it is removed.

        Raises:
            ValueError: there is an intact checkpoint of a later step, so the folder belongs to another run; or it is a
                file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder for checkpoints")
        files.remove_unfinished(self.path)
        for later in [found for found in self.steps() if found > step]:
            try:
                Saved(self._of(later)).close()
            except DamagedCheckpointError:
                files.remove_folder(self._of(later))
            else:
                raise ValueError(
                    f"{self.path} holds a checkpoint of step {later}, this run stands at step {step}; continue the run "
                    "it belongs to with loop.restore, or give another folder"
                )

    def _of(self, step):
        return self.path / f"step-{step:08d}"
