"""Image data in files, Keras's .npz layout and the IDX files of MNIST, with every fault reported in one line."""

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
from typing import BinaryIO

import numpy as np

from trainloop.checks import error, listing, one_line
from trainloop.files import open_file
from trainloop.memory import free_memory, in_words

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
    with _unreadable_as_value_error(path), open_file(path) as file:
        with zipfile.ZipFile(file) as parts:
            wanted = [part for part in parts.infolist() if part.filename.removesuffix(".npy") in ARRAY_NAMES]
            size = sum(_bytes_of(parts, part) for part in wanted)
        _check_fits(path, size)
        with np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            present = archive.files
            raw = {field: archive[field] for field in ARRAY_NAMES if field in present}
    missing = [field for field in ARRAY_NAMES if field not in raw]
    if missing:
        received = f"a file without {', '.join(missing)} (it has {listing(present)})"
        raise error(str(path), f"arrays {', '.join(ARRAY_NAMES)}", received, "save it with these names")
    return raw


def _bytes_of(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> int:
    """The size of an array, which its header must not state larger than the data behind it are."""
    with archive.open(part) as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
        header = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{part.filename} is an array of Python objects, which allow_pickle=False does not read")
    size = math.prod(shape) * dtype.itemsize
    if header + size != part.file_size:
        raise ValueError(f"{part.filename} has {part.file_size - header} bytes, its header says {size}")
    return size


def _check_fits(path: Path, size: int) -> None:
    """ValueError for more than there is memory."""
    free = free_memory()
    if free is not None and size > free:
        expected = f"data that fit into the {in_words(free)} of memory that are free"
        raise error(str(path), expected, in_words(size), "give fewer samples")


def _read_idx(folder: Path, file_name: str, magic: int) -> np.ndarray:
    """The uint8 array in the IDX file `file_name` of `folder`, whichever way it is spelled there."""
    path = _find_idx(folder, file_name)
    with _unreadable_as_value_error(path), open_file(path) as file:
        content = _unpacked(path, file, magic) if path.suffix == ".gz" else file.read()
    return _parse_idx(path, content, magic)


def _unpacked(path: Path, file: BinaryIO, magic: int) -> bytes:
    """What a compressed IDX file holds; little more than its header says, for a few bytes may unpack to any number."""
    header = 4 * (1 + (magic & 0xFF))
    unpacked = gzip.GzipFile(fileobj=file)
    content = unpacked.read(header)
    if len(content) < header or content[:4] != struct.pack(">I", magic):
        return content  # which `_parse_idx` rejects
    size = math.prod(struct.unpack(f">{header // 4}I", content)[1:])
    _check_fits(path, size)
    return content + unpacked.read(size + 1)


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


# What a damaged or forged file makes zipfile, gzip, NumPy and Python's parser raise.
_UNREADABLE = (
    *(OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError, MemoryError),
    *(TypeError, KeyError, SyntaxError, OverflowError, struct.error),
)


@contextmanager
def _unreadable_as_value_error(path: Path) -> Iterator[None]:
    """Turns what the zip, gzip and file readers raise on a damaged file into one ValueError."""
    try:
        yield
    # RuntimeError: zipfile on an encrypted member; ValueError: NumPy on a malformed or pickled array.
    except _UNREADABLE as fault:
        received = f"one that cannot be read ({one_line(fault)})"
        advice = "check its permissions, or fetch or save it again"
        raise error(str(path), "a complete file of plain arrays", received, advice) from fault
