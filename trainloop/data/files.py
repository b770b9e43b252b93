"""Image data in files, Keras's .npz layout and the IDX files of MNIST, with every fault told in one line."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from trainloop.checks import error, listing, one_line

ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")

# In the magic number 0x08 stands for unsigned bytes and the last byte is the number of dimensions.
IDX_IMAGES, IDX_LABELS = 0x00000803, 0x00000801
IDX_FILES = {
    "x_train": ("train-images-idx3-ubyte", IDX_IMAGES),
    "y_train": ("train-labels-idx1-ubyte", IDX_LABELS),
    "x_test": ("t10k-images-idx3-ubyte", IDX_IMAGES),
    "y_test": ("t10k-labels-idx1-ubyte", IDX_LABELS),
}

PATH_KINDS = "an .npz file or a folder of IDX files"


def read_path(path: str) -> dict[str, np.ndarray]:
    """The four `ARRAY_NAMES` of an existing .npz file or folder of IDX files, as they stand there.

    Raises:
        FileNotFoundError: one of the four IDX files is missing.
        ValueError: a file of another kind, damaged, or without one of the arrays.
    """
    if os.path.isdir(path):
        return {field: _read_idx(Path(path), *file) for field, file in IDX_FILES.items()}
    if path.lower().endswith(".npz"):
        return _read_npz(Path(path))
    raise error(path, PATH_KINDS, "a file of another kind", "save the arrays with np.savez as .npz")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # np.load would try other formats on a damaged archive and leave the file open; NpzFile takes zip only.
    with (
        _unreadable_as_value_error(path),
        path.open("rb") as file,
        np.lib.npyio.NpzFile(file, allow_pickle=False) as archive,
    ):
        present = archive.files
        raw = {field: archive[field] for field in ARRAY_NAMES if field in present}
    missing = [field for field in ARRAY_NAMES if field not in raw]
    if missing:
        received = f"a file without {', '.join(missing)} (it has {listing(present)})"
        raise error(str(path), f"arrays {', '.join(ARRAY_NAMES)}", received, "save it with these names")
    return raw


def _read_idx(folder: Path, file_name: str, magic: int) -> np.ndarray:
    """The uint8 array in the IDX file `file_name` of `folder`, whichever way it is spelled there."""
    path = _find_idx(folder, file_name)
    opener = gzip.open if path.suffix == ".gz" else open
    with _unreadable_as_value_error(path), opener(path, "rb") as file:
        content = file.read()
    return _parse_idx(path, content, magic)


def _find_idx(folder: Path, file_name: str) -> Path:
    for spelling in (file_name, file_name.replace("-idx", ".idx")):
        for path in (folder / spelling, folder / f"{spelling}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{folder}: expected the IDX file {file_name} (or with .idx for -idx, or .gz added), received a "
        f"folder without it (it has {listing(os.listdir(folder))}); put all four files of the data set there"
    )


def _parse_idx(path: Path, content: bytes, magic: int) -> np.ndarray:
    """The uint8 array in an IDX file: magic number and dimensions as big-endian uint32, then the bytes."""
    rank = magic & 0xFF
    header = 4 * (1 + rank)
    if len(content) < header:
        received = f"a truncated file of {len(content)} bytes"
        raise error(str(path), f"an IDX header of {header} bytes", received, "fetch it again")
    found, *shape = struct.unpack(f">{1 + rank}I", content[:header])
    if found != magic:
        advice = "check that images and labels are not exchanged, and that a compressed file ends in .gz"
        raise error(str(path), f"the magic number 0x{magic:08x}", f"0x{found:08x}", advice)
    size = header + math.prod(shape)
    if len(content) != size:
        kind = "a truncated file" if len(content) < size else "trailing bytes, a file"
        expected = f"{size} bytes for the shape {tuple(shape)} in its header"
        raise error(str(path), expected, f"{kind} of {len(content)} bytes", "fetch it again")
    return np.frombuffer(content, np.uint8)[header:].reshape(shape)


@contextmanager
def _unreadable_as_value_error(path: Path) -> Iterator[None]:
    """Turns what the zip, gzip and file readers raise on a damaged file into one ValueError."""
    try:
        yield
    # RuntimeError: zipfile on an encrypted member; ValueError: NumPy on a malformed or pickled array.
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError) as fault:
        received = f"one that cannot be read ({one_line(fault)})"
        advice = "check its permissions, or fetch or save it again"
        raise error(str(path), "a complete file of plain arrays", received, advice) from fault
