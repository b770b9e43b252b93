"""Tests of trainloop.data: each source from real files, each refusal, each batch against NumPy."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import struct
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from environment import MNIST

from trainloop.data import DATASETS, ArrayData, DataSplit, load
from trainloop.data import files as data_files
from trainloop.data.arrays import gather_batch
from trainloop.data.datasets import make_split

MAGIC = {"images": 0x00000803, "labels": 0x00000801}
STEMS = {
    "x_train": ("train", "images", "idx3"),
    "y_train": ("train", "labels", "idx1"),
    "x_test": ("t10k", "images", "idx3"),
    "y_test": ("t10k", "labels", "idx1"),
}


@contextmanager
def expect_refusal(*fragments: str, kind: type[Exception] = ValueError):
    """The block raises exactly `kind`: one line, what was received, and the `fragments`."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    for fragment in ("received", *fragments):
        assert fragment in message


def raw_arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """A tiny data set as a file holds it: uint8 images [N, 5, 4], three classes."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 5, 4)).astype(np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "x_test": rng.integers(0, 256, (3, 5, 4)).astype(np.uint8),
        "y_test": np.array([2, 1, 0], np.uint8),
    }
    return {**arrays, **changes}


def split_fields(**changes) -> dict:
    """Valid fields of a DataSplit, with `changes`."""
    fields = {
        "x_train": np.linspace(0, 1, 6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4, 1),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.int32),
        "x_test": np.zeros((3, 5, 4, 1), np.float32),
        "y_test": np.array([2, 1, 0], np.int32),
        "classes": 3,
    }
    return {**fields, **changes}


def save_npz(folder: Path, **changes: np.ndarray) -> Path:
    path = folder / "small.npz"
    np.savez(path, **raw_arrays(**changes))
    return path


def idx_bytes(field: str, array: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", MAGIC[STEMS[field][1]], *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_path(folder: Path, field: str, dotted: bool = False) -> Path:
    part, content, rank = STEMS[field]
    return folder / f"{part}-{content}{'.' if dotted else '-'}{rank}-ubyte"


def save_idx(folder: Path, dotted: bool = False, zipped: bool = False) -> Path:
    for field, array in raw_arrays().items():
        path, content = idx_path(folder, field, dotted), idx_bytes(field, array)
        if zipped:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)
    return folder


def assert_holds(split: DataSplit, raw: dict[str, np.ndarray]) -> None:
    """`split` is `raw` (uint8, [N, H, W]) brought into the one known form."""
    for part in ("train", "test"):
        images, labels = getattr(split, f"x_{part}"), getattr(split, f"y_{part}")
        assert images.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_allclose(images, raw[f"x_{part}"][..., None] / 255.0, rtol=1e-7)
        np.testing.assert_array_equal(labels, raw[f"y_{part}"])


# --- DataSplit ------------------------------------------------------------------------------------------


def test_split_keeps_its_fields():
    fields = split_fields(classes=np.int64(3))
    split = DataSplit(**fields)
    assert split.x_train is fields["x_train"]
    assert split.input_shape == (5, 4, 1)
    assert type(split.classes) is int
    assert split.name == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        split.classes = 4


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"y_train": np.zeros(5, np.int32)}, ["x_train, y_train", "6 images and 5 labels"]),
        ({"y_test": np.zeros(4, np.int32)}, ["x_test, y_test", "3 images and 4 labels"]),
        ({"x_train": np.zeros((0, 5, 4, 1), np.float32)}, ["x_train", "at least one", "(0, 5, 4, 1)"]),
        ({"x_test": np.zeros((3, 0, 4, 1), np.float32)}, ["x_test", "at least one", "(3, 0, 4, 1)"]),
        ({"x_train": np.zeros((6, 5, 4), np.float32)}, ["x_train", "[N, H, W, C]", "(6, 5, 4)"]),
        ({"x_train": np.zeros((6, 5, 4, 1))}, ["x_train", "float32", "float64"]),
        ({"x_train": [[1.0]]}, ["x_train", "NumPy array", "list"]),
        ({"y_train": np.zeros(6, np.int64)}, ["y_train", "int32", "int64"]),
        ({"y_train": np.zeros((6, 1), np.int32)}, ["y_train", "[N]", "(6, 1)"]),
        ({"x_test": np.zeros((3, 4, 5, 1), np.float32)}, ["(5, 4, 1) for training", "(4, 5, 1) for testing"]),
        ({"y_train": np.array([0, 1, 2, 0, 3, 2], np.int32)}, ["y_train", "0..2", "3 at index (4,)"]),
        ({"y_test": np.array([0, -7, 3], np.int32)}, ["y_test", "0..2", "-7 at index (1,)", "2 of 3"]),
        ({"classes": 1}, ["classes", "at least 2", "1"]),
        ({"classes": True}, ["classes", "True"]),
        ({"classes": 3.0}, ["classes", "3.0"]),
    ],
)
def test_split_refuses(changes, fragments):
    with expect_refusal(*fragments):
        DataSplit(**split_fields(**changes))


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ([np.nan, np.inf], ["finite", "2 of 120", "(1, 2, 3, 0)"]),
        ([-np.inf, 0.5], ["finite", "1 of 120", "(1, 2, 3, 0)"]),
        ([1.5, 2.5], ["0..1", "1.5 at index (1, 2, 3, 0)", "2 of 120"]),
        ([-0.25, 1.0], ["0..1", "-0.25 at index (1, 2, 3, 0)", "1 of 120"]),
    ],
)
def test_split_refuses_pixels(values, fragments):
    images = split_fields()["x_train"].copy()
    images[1, 2, 3, 0], images[5, 0, 0, 0] = values
    with expect_refusal("x_train", *fragments):
        DataSplit(**split_fields(x_train=images))


# --- load: names ----------------------------------------------------------------------------------------


def test_every_data_set_has_a_line():
    names = ["digits", "mnist", "fashion_mnist", "breast_cancer", "wine", "diabetes", "linnerud", "text", "parity"]
    assert list(DATASETS) == names
    assert all(text and "\n" not in text for text in DATASETS.values())


@pytest.mark.parametrize(
    ("name", "near"),
    [("mnst", "mnist"), ("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist"), ("digit", "digits")],
)
def test_unknown_name_suggests_the_near_miss(name, near):
    with expect_refusal(f"did you mean '{near}'?", repr(name), "digits, mnist, fashion_mnist"):
        load(name)


@pytest.mark.parametrize("name", ["qqqq", ""])
def test_unknown_name_without_a_near_miss(name):
    with expect_refusal(repr(name), "digits, mnist, fashion_mnist", "check the spelling"):
        load(name)


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere.npz", "nowhere.NPZ", Path("mnst")])
def test_missing_path(name):
    with expect_refusal(str(name), "does not exist", kind=FileNotFoundError):
        load(name)


@pytest.mark.parametrize("name", [None, 3, b"mnist"])
def test_name_of_the_wrong_type(name):
    with expect_refusal(repr(name), "Path"):
        load(name)


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "images.csv"
    path.write_text("1,2")
    with expect_refusal(str(path), ".npz"):
        load(path)


# --- load: digits and Keras -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> DataSplit:
    return load("digits")


def test_digits_form(digits):
    assert digits.name == "digits"
    assert digits.classes == 10
    assert digits.input_shape == (28, 28, 1)
    assert digits.x_train.dtype == digits.x_test.dtype == np.float32
    assert digits.y_train.dtype == digits.y_test.dtype == np.int32
    assert (len(digits.x_train), len(digits.x_test)) == (1437, 360)
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1


def test_digits_test_fifth_is_stratified(digits):
    whole = np.bincount(np.concatenate([digits.y_train, digits.y_test]))
    # The class counts that come with the data set.
    np.testing.assert_array_equal(whole, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert np.abs(np.bincount(digits.y_test) - whole / 5).max() < 1


def test_digits_images_are_scipys_bilinear_zoom(digits):
    """Every image, training or test, is a different one of the 1,797 originals as SciPy enlarges it."""
    from scipy import ndimage
    from sklearn.datasets import load_digits

    source = load_digits()
    zoomed = ndimage.zoom(source.images / 16, (1, 3.5, 3.5), order=1, grid_mode=True, mode="nearest")
    zoomed = zoomed.reshape(1797, -1)
    ours = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, -1).astype(np.float64)
    # |a - b|^2 = |a|^2 - 2ab + |b|^2 finds for each of our images the nearest original in one product.
    nearest = ((zoomed**2).sum(axis=1) - 2 * ours @ zoomed.T).argmin(axis=1)
    assert len(set(nearest)) == 1797
    np.testing.assert_allclose(ours, zoomed[nearest], atol=1e-6)
    labels = np.concatenate([digits.y_train, digits.y_test])
    np.testing.assert_array_equal(labels, source.target[nearest])


def test_digits_are_the_same_every_time(digits):
    again = load("digits")
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(again, field), getattr(digits, field))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_keras_data_set(name, monkeypatch):
    import keras

    raw = raw_arrays()
    answer = (raw["x_train"], raw["y_train"]), (raw["x_test"], raw["y_test"])
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: answer)
    split = load(name)
    assert_holds(split, raw)
    assert split.name == name


@pytest.mark.parametrize(
    "error",
    [
        # What Keras raises without a network: a bare Exception with this text.
        Exception("URL fetch failure on https://host/mnist.npz: None -- [Errno -2] Name or service not known"),
        ConnectionResetError("reset\nby peer"),
        ValueError("Incomplete or corrupted file detected."),
    ],
)
def test_keras_download_fails(error, monkeypatch):
    import keras

    def load_data():
        raise error

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    with expect_refusal("could not download 'mnist'", str(error).split()[0], "check the network", ".npz", "IDX"):
        load("mnist")


def test_a_path_is_never_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    save_idx(Path("digits"))
    assert len(load(Path("digits")).x_train) == len(load("./digits").x_train) == 6
    assert len(load("digits").x_train) == 1437


# --- load: .npz -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_npz_round_trip(tmp_path, kind):
    path = save_npz(tmp_path)
    split = load(kind(path))
    assert_holds(split, raw_arrays())
    assert split.classes == 3
    assert split.input_shape == (5, 4, 1)
    assert split.name == str(path)


def test_npz_compressed_round_trip(tmp_path):
    path = tmp_path / "small.npz"
    np.savez_compressed(path, **raw_arrays())
    assert_holds(load(path), raw_arrays())


def test_npz_with_colour_images(tmp_path):
    images = {f: raw_arrays()[f][..., None].repeat(3, axis=-1) for f in ("x_train", "x_test")}
    assert load(save_npz(tmp_path, **images)).input_shape == (5, 4, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint16, np.uint64])
def test_npz_integer_images_of_any_type(tmp_path, dtype):
    images = {f: (raw_arrays()[f] // 2).astype(dtype) for f in ("x_train", "x_test")}
    assert_holds(load(save_npz(tmp_path, **images)), raw_arrays(**images))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz_float_images_stay_as_they_are(tmp_path, dtype):
    images = {f: (raw_arrays()[f] / 256).astype(dtype) for f in ("x_train", "x_test")}
    split = load(save_npz(tmp_path, **images))
    assert split.x_train.dtype == np.float32
    np.testing.assert_array_equal(split.x_train[..., 0], images["x_train"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("column", [False, True])
def test_npz_labels_of_any_whole_type(tmp_path, dtype, column):
    labels = raw_arrays()["y_train"].astype(dtype)
    split = load(save_npz(tmp_path, y_train=labels[:, None] if column else labels))
    assert_holds(split, raw_arrays())


def test_npz_of_one_class_counts_two(tmp_path):
    split = load(save_npz(tmp_path, y_train=np.zeros(6, int), y_test=np.ones(3, int)))
    assert split.classes == 2


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"x_train": np.full((6, 5, 4), 256)}, ["x_train", "0..255", "256"]),
        ({"x_test": np.full((3, 5, 4), -1, np.int8)}, ["x_test", "0..255", "-1"]),
        ({"x_train": np.full((6, 5, 4), 255.0)}, ["x_train", "0..1", "255.0"]),
        ({"x_train": np.full((6, 5, 4), 1e300)}, ["x_train", "0..1", "1e+300"]),
        ({"x_train": np.full((6, 5, 4), np.nan)}, ["x_train", "finite", "120 of 120"]),
        ({"x_train": np.ones((6, 5, 4), bool)}, ["x_train", "bool"]),
        ({"x_train": np.full((6, 5, 4), "a")}, ["x_train", "<U1"]),
        ({"x_train": np.zeros((6, 20), np.uint8)}, ["x_train", "[N, H, W, C]", "(6, 20)"]),
        (
            {"x_train": np.zeros((0, 5, 4), np.uint8), "y_train": np.zeros(0, int)},
            ["x_train", "at least one"],
        ),
        ({"y_train": np.zeros(0, int)}, ["6 images and 0 labels"]),
        ({"y_train": np.zeros(6, bool)}, ["y_train", "integer labels", "bool"]),
        ({"y_train": np.zeros((6, 3), int)}, ["y_train", "[N]", "(6, 3)", "argmax"]),
        ({"y_train": np.array([0, 1, 0.5, 2, 1, 0])}, ["y_train", "whole", "0.5 at index (2,)"]),
        ({"y_train": np.array([0, 1, 0, np.nan, 1, 0])}, ["y_train", "whole", "nan at index (3,)"]),
        ({"y_train": np.array([0, 1, 0, np.inf, 1, 0])}, ["y_train", "inf at index (3,)"]),
        ({"y_train": np.array([0, 1, 0, 1, -1, 0])}, ["y_train", "-1 at index (4,)"]),
        ({"y_train": np.array([0, 2**32, 0, 1, 1, 0])}, ["y_train", "4294967296 at index (1,)"]),
        ({"y_train": np.array([0, 2**31, 0, 1, 1, 0], np.float32)}, ["y_train", "2147483648.0"]),
        ({"y_test": np.array([0, 1, 3])}, ["y_test", "0..2", "3 at index (2,)"]),
    ],
)
def test_npz_with_unfit_data(tmp_path, changes, fragments):
    path = save_npz(tmp_path, **changes)
    with expect_refusal(str(path), *fragments):
        load(path)


def test_npz_without_an_array(tmp_path):
    path = tmp_path / "small.npz"
    np.savez(path, x_train=raw_arrays()["x_train"], labels=raw_arrays()["y_train"])
    with expect_refusal(str(path), "without y_train, x_test, y_test", "it has labels, x_train"):
        load(path)


def test_npz_without_any_array(tmp_path):
    path = tmp_path / "small.npz"
    np.savez(path)
    with expect_refusal(str(path), "it has nothing"):
        load(path)


def test_npz_with_many_other_arrays_keeps_the_line_short(tmp_path):
    path = tmp_path / "small.npz"
    np.savez(path, **{f"a{i:03}": np.zeros(1) for i in range(100)})
    with expect_refusal("a000, a001", "a007, 92 more"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 nothing after the signature"])
def test_npz_that_is_no_archive(tmp_path, content):
    path = tmp_path / "small.npz"
    path.write_bytes(content)
    with expect_refusal(str(path), "cannot be read"):
        load(path)


def test_npz_truncated(tmp_path):
    path = save_npz(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with expect_refusal(str(path), "cannot be read"):
        load(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_a_damaged_member(tmp_path, save):
    path = tmp_path / "small.npz"
    save(path, **raw_arrays())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("x_train.npy")
    # Past the member's local header and, uncompressed, past the header of the array in it.
    start = member.header_offset + member.compress_size - 10
    content[start : start + 8] = bytes(255 - byte for byte in content[start : start + 8])
    path.write_bytes(content)
    with expect_refusal(str(path), "cannot be read"):
        load(path)


def test_npz_never_unpickles(tmp_path):
    path = save_npz(tmp_path, x_train=np.array([{}], dtype=object))
    with expect_refusal(str(path), "cannot be read", "allow_pickle=False"):
        load(path)


def forged(array, **header):
    """The bytes of an .npy file whose header says something else than its array is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array) | header)
    return file.getvalue() + array.tobytes()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"shape": (10**15, 28, 28)}, "its header says"),
        ({"shape": (1,)}, "its header says 1"),
        ({"shape": (-5,)}, "its header says -5"),
        ({"descr": "|O"}, "allow_pickle=False"),
        ({"descr": "not a dtype"}, "cannot be read"),
        ({"shape": ((((1,),),),)}, "cannot be read"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_with_a_header_that_is_not_that_of_its_array(header, words, compression, tmp_path):
    path = tmp_path / "small.npz"
    np.savez(path, **{name: array for name, array in raw_arrays().items() if name != "x_train"})
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr("x_train.npy", forged(np.zeros((5, 4, 3), "uint8"), **header))
    with expect_refusal(str(path), words):
        load(path)


@pytest.mark.parametrize("free", [10, 100])
def test_npz_that_unpacks_to_more_than_there_is_memory(free, tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "free_memory", lambda: free)
    path = save_npz(tmp_path)
    with expect_refusal(str(path), f"data that fit into the {free} B of memory that are free"):
        load(path)


def test_idx_that_unpacks_to_more_than_its_header_says(tmp_path, monkeypatch):
    save_idx(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(10**6)))
    with expect_refusal(str(path), f"trailing bytes, a file of {len(content) + 1} bytes"):
        load(tmp_path)
    path.write_bytes(gzip.compress(content[:4] + struct.pack(">3I", 2**31, 2**15, 2**15)))
    with expect_refusal(str(path), "data that fit into the", "give fewer samples"):
        load(tmp_path)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with expect_refusal("a.npz", "is no file but a folder, a pipe or a device"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("field", ["y_train", "x_train"])
def test_a_label_that_asks_for_a_network_of_a_billion_outputs(field, tmp_path):
    tokens = {name: np.zeros((4, 6), "int64") for name in ("x_train", "y_train", "x_test", "y_test")}
    tokens[field][2, 3] = 10**9
    path = tmp_path / "tokens.npz"
    np.savez(path, **tokens)
    with expect_refusal(str(path), field, "1000000000 at index (2, 3) among 24", "number the classes from 0"):
        load(path)


@pytest.mark.parametrize(
    "x",
    [
        [[1.0, 2.0], [3.0]],  # rows of different lengths
        np.array([[1.0, None]], dtype=object),
        np.array([{"a": 1}]),
        np.zeros(3, [("a", float), ("b", [("c", int)])]),
        np.array(["a", "b"]),
        [[[[[[1.0]]]]]],
        np.array(1.0),
        None,
    ],
)
def test_arrays_of_other_things_are_one_line(x):
    with expect_refusal("mine"):
        make_split("mine", dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), x))


def test_names_with_control_characters_are_written_out(tmp_path):
    path = tmp_path / "a\x1b[2Jb.npz"
    np.savez(path, **{"x_train": np.zeros(3), "\x1b]0;title\x07": np.zeros(3)})
    with pytest.raises(ValueError, match="without y_train") as caught:
        load(path)
    text = str(caught.value)
    assert text.isprintable()
    assert r"a\x1b[2Jb.npz" in text
    assert r"\x1b]0;title\x07" in text


def test_npz_without_permission(tmp_path, monkeypatch):
    path = save_npz(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read every file, so chmod would not do
    with expect_refusal(str(path), "Permission denied", "check its permissions"):
        load(path)


# --- load: IDX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_round_trip(tmp_path, dotted, zipped):
    split = load(save_idx(tmp_path, dotted, zipped))
    assert_holds(split, raw_arrays())
    assert split.classes == 3


def test_idx_spellings_may_be_mixed(tmp_path):
    save_idx(tmp_path)
    plain = idx_path(tmp_path, "y_test")
    dotted = idx_path(tmp_path, "y_test", dotted=True)
    dotted.with_name(f"{dotted.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert_holds(load(str(tmp_path)), raw_arrays())


@pytest.mark.parametrize("field", STEMS)
def test_idx_file_missing(tmp_path, field):
    save_idx(tmp_path)
    path = idx_path(tmp_path, field)
    path.unlink()
    path.mkdir()  # a folder of that name is no file either
    with expect_refusal(str(tmp_path), f"IDX file {path.name}", "it has t10k-", kind=FileNotFoundError):
        load(tmp_path)


def test_idx_folder_empty(tmp_path):
    with expect_refusal(str(tmp_path), "train-images-idx3-ubyte", "it has nothing", kind=FileNotFoundError):
        load(tmp_path)


def overwrite(folder: Path, field: str, content: bytes) -> Path:
    path = idx_path(save_idx(folder), field)
    path.write_bytes(content)
    return path


def test_idx_images_and_labels_exchanged(tmp_path):
    path = overwrite(tmp_path, "x_train", idx_bytes("y_train", np.zeros(20)))
    with expect_refusal(str(path), "0x00000803", "0x00000801"):
        load(tmp_path)
    path = overwrite(tmp_path, "y_test", idx_bytes("x_test", np.zeros((3, 5, 4))))
    with expect_refusal(str(path), "0x00000801", "0x00000803"):
        load(tmp_path)


def test_idx_compressed_without_the_ending(tmp_path):
    path = overwrite(tmp_path, "x_train", gzip.compress(idx_bytes("x_train", raw_arrays()["x_train"])))
    with expect_refusal(str(path), "0x00000803", "0x1f8b", ".gz"):
        load(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 15])
def test_idx_header_truncated(tmp_path, size):
    path = overwrite(tmp_path, "x_test", idx_bytes("x_test", raw_arrays()["x_test"])[:size])
    with expect_refusal(str(path), "header of 16 bytes", f"truncated file of {size} bytes"):
        load(tmp_path)


def test_idx_truncated(tmp_path):
    path = overwrite(tmp_path, "x_test", idx_bytes("x_test", raw_arrays()["x_test"])[:-1])
    with expect_refusal(str(path), "76 bytes", "(3, 5, 4)", "truncated file of 75 bytes"):
        load(tmp_path)


def test_idx_trailing_bytes(tmp_path):
    path = overwrite(tmp_path, "y_test", idx_bytes("y_test", raw_arrays()["y_test"]) + b"\n")
    with expect_refusal(str(path), "11 bytes", "(3,)", "trailing bytes, a file of 12 bytes"):
        load(tmp_path)


def test_idx_without_samples(tmp_path):
    overwrite(tmp_path, "x_test", idx_bytes("x_test", np.zeros((0, 5, 4))))
    with expect_refusal(str(tmp_path), "x_test", "at least one image"):
        load(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b + b"tail", lambda b: b[1:], lambda b: b[:20] + bytes(20)]
)
def test_idx_gzip_damaged(tmp_path, damage):
    save_idx(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with expect_refusal(str(path), "cannot be read"):
        load(tmp_path)


# --- load: the real MNIST -------------------------------------------------------------------------------


@pytest.mark.skipif(not MNIST.exists(), reason="needs MNIST as ../shared/data/mnist.npz beside the repository")
@pytest.mark.thorough
def test_real_mnist():
    split = load(MNIST)
    assert split.x_train.shape == (60000, 28, 28, 1)
    assert split.x_test.shape == (10000, 28, 28, 1)
    assert split.classes == 10
    # Published facts: the class counts, and the mean and standard deviation everyone normalizes MNIST with.
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(np.bincount(split.y_train), train)
    np.testing.assert_array_equal(np.bincount(split.y_test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert split.x_train.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert split.x_train.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)


# --- ArrayData: sizes and arrays ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "batch_size", "resolved", "steps", "remainder"),
    [
        (10, 4, 4, 3, 2),
        (10, 5, 5, 2, 0),
        (10, 10, 10, 1, 0),
        (10, None, 10, 1, 0),
        (1, 1, 1, 1, 0),
        (3, 2, 2, 2, 1),
    ],
)
def test_sizes(size, batch_size, resolved, steps, remainder):
    data = ArrayData(np.zeros((size, 2)), batch_size=batch_size)
    assert (data.size, data.batch_size) == (size, resolved)
    assert (data.steps_per_epoch, data.remainder) == (steps, remainder)


def test_batch_size_is_64_unless_given():
    data = ArrayData(np.zeros(100), seed=np.int64(3))
    assert (data.batch_size, data.remainder) == (64, 36)
    assert type(data.seed) is int


def test_arrays_are_as_many_as_given():
    x, y, weight = np.zeros((4, 2)), np.zeros(4, np.int32), np.ones(4, np.float32)
    assert len(ArrayData(x, batch_size=2).arrays) == 1
    assert len(ArrayData(x, y, batch_size=2).arrays) == 2
    assert len(ArrayData(x, y, batch_size=2, sample_weight=weight).arrays) == 3


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64", "bool", "complex64", "bfloat16"])
def test_dtypes_are_kept(dtype):
    x = np.ones((3, 2), tf.as_dtype(dtype).as_numpy_dtype)
    data = ArrayData(x, batch_size=2)
    assert data.arrays[0].dtype == tf.as_dtype(dtype)
    np.testing.assert_array_equal(data.arrays[0].numpy(), x)


def test_arrays_are_a_copy():
    x = np.zeros(1000, np.float32)
    data = ArrayData(x)
    x[:] = 1
    assert not data.arrays[0].numpy().any()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ({"y": np.zeros(5)}, ["x, y", "6 samples in x and 5 in y"]),
        (
            {"y": np.zeros(6), "sample_weight": np.zeros(7)},
            ["x, sample_weight", "6 samples", "7 in sample_weight"],
        ),
        ({"x": (np.zeros(6), np.zeros(4))}, ["x[0], x[1]", "6 samples", "4 in x[1]"]),
        ({"x": {"a": np.zeros(6), "b": [np.zeros(4)]}}, ["x['a'], x['b'][0]", "6 samples", "4 in x['b'][0]"]),
        ({"sample_weight": np.zeros(6)}, ["sample_weight", "y=None"]),
        ({"x": np.zeros((0, 3))}, ["x", "at least one sample", "(0, 3)"]),
        ({"x": ()}, ["x", "at least one array"]),
        ({"y": {}}, ["y", "at least one array"]),
        ({"x": None, "y": np.zeros(6)}, ["x", "numeric arrays", "None"]),
        ({"x": np.array([{}])}, ["x", "numeric arrays", "dict"]),
        ({"x": np.array(["a", "b"])}, ["x", "numeric", "string"]),
        ({"x": 3.0}, ["x", "[N, ...]", "shape ()"]),
        ({"y": [1, 2, 3, 4, 5, 6]}, ["y[0]", "[N, ...]", "np.asarray"]),
        ({"batch_size": 7}, ["batch_size", "at most the 6", "7", "None"]),
        ({"batch_size": 0}, ["batch_size", "at least 1", "0"]),
        ({"batch_size": -2}, ["batch_size", "-2"]),
        ({"batch_size": True}, ["batch_size", "True"]),
        ({"batch_size": 2.0}, ["batch_size", "2.0"]),
        ({"batch_size": "2"}, ["batch_size", "'2'"]),
        ({"seed": -1}, ["seed", "at least 0", "-1"]),
        ({"seed": None}, ["seed", "None"]),
        ({"seed": False}, ["seed", "False"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
    ],
)
def test_array_data_refuses(arguments, fragments):
    with expect_refusal(*fragments):
        ArrayData(**{"x": np.zeros((6, 2)), "batch_size": 2, **arguments})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex128", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_array_data_refuses_values_that_are_not_finite(dtype, value):
    x = np.zeros((3, 2), tf.as_dtype(dtype).as_numpy_dtype)
    x[1, 1] = value
    with expect_refusal("x['b']", "finite", "1 of 6", "(1, 1)"):
        ArrayData({"a": np.zeros(3), "b": x}, batch_size=1)
    with expect_refusal("sample_weight", "finite", "1 of 3", "(1,)"):
        ArrayData(np.zeros(3), np.zeros(3), 1, sample_weight=x[:, 1])


# --- ArrayData: order -----------------------------------------------------------------------------------


def order(size=100, batch_size=10, seed=0, epoch=0, **options) -> np.ndarray:
    return ArrayData(np.zeros(size), batch_size=batch_size, seed=seed, **options).order(epoch).numpy()


def test_order_is_a_permutation():
    for epoch in range(5):
        indices = order(epoch=epoch)
        assert indices.dtype == np.int32
        np.testing.assert_array_equal(np.sort(indices), np.arange(100))


def test_order_depends_on_seed_and_epoch_as_a_pair():
    orders = {tuple(order(seed=seed, epoch=epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36
    assert tuple(range(100)) not in orders


def test_order_is_reproducible_and_has_no_memory():
    data = ArrayData(np.zeros(100), batch_size=10, seed=2**40)
    forwards = [data.order(epoch).numpy() for epoch in range(4)]
    backwards = [order(seed=2**40, epoch=epoch) for epoch in reversed(range(4))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_order_does_not_depend_on_the_batch_size_or_on_global_seeds():
    expected = order(batch_size=10, epoch=3)
    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    np.testing.assert_array_equal(order(batch_size=7, epoch=3), expected)


def test_order_is_uniform():
    """Each sample comes first equally often: 2,000 epochs of 10 samples, within 5 standard deviations."""
    data = ArrayData(np.zeros(10), batch_size=1)
    firsts = np.bincount([int(data.order(epoch)[0]) for epoch in range(2000)], minlength=10)
    assert np.abs(firsts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)


@pytest.mark.parametrize("options", [{"shuffle": False}, {"batch_size": None}, {"batch_size": 100}])
def test_order_is_the_identity(options):
    indices = order(epoch=4, **options)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, np.arange(100))


@pytest.mark.parametrize("epoch", [-1, 1.0, True, None])
def test_order_refuses_the_epoch(epoch):
    with expect_refusal("epoch", "at least 0", repr(epoch)):
        order(epoch=epoch)
    with expect_refusal("epoch", "at least 0", repr(epoch)):
        order(epoch=epoch, shuffle=False)


# --- ArrayData: batches ---------------------------------------------------------------------------------


@pytest.fixture
def nested() -> tuple[dict, ArrayData]:
    """NumPy arrays of many forms and the same as ArrayData: 10 samples in batches of 4, the last one of 2."""
    rng = np.random.default_rng(5)
    x = {"image": rng.random((10, 3, 2)), "pair": (rng.random(10).astype(np.float32), np.arange(10))}
    y, weight = rng.integers(0, 3, (10, 1)).astype(np.int32), rng.random(10).astype(np.float32)
    return (x, y, weight), ArrayData(x, y, batch_size=4, seed=1, sample_weight=weight)


def assert_batch(batch, arrays, indices) -> None:
    expected = tf.nest.map_structure(lambda array: array[indices], arrays)
    tf.nest.assert_same_structure(batch, expected)
    for ours, numpys in zip(tf.nest.flatten(batch), tf.nest.flatten(expected), strict=True):
        assert ours.dtype == numpys.dtype
        np.testing.assert_array_equal(ours.numpy(), numpys)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.thorough_after(1)
def test_compiled_batches_equal_numpy_indexing(nested, jit_compile):
    arrays, data = nested
    compiled = tf.function(gather_batch, jit_compile=jit_compile)
    for epoch in range(2):
        indices = data.order(epoch)
        for start in range(0, 10, 4):
            batch = compiled(data.arrays, indices, tf.constant(start), tf.constant(4))
            assert_batch(batch, arrays, indices.numpy()[start : start + 4])


def test_batch_in_a_compiled_loop_sees_every_sample_once():
    data = ArrayData(np.arange(10.0), batch_size=4, seed=3)

    @tf.function
    def epoch_of_batches(indices):
        seen = tf.TensorArray(tf.float64, size=data.steps_per_epoch, infer_shape=False)
        for step in tf.range(data.steps_per_epoch):
            (x,) = data.batch(indices, step * data.batch_size, tf.constant(data.batch_size))
            seen = seen.write(step, x)
        return seen.concat()

    indices = data.order(0)
    np.testing.assert_array_equal(epoch_of_batches(indices), indices.numpy().astype(float))


def test_batch_with_python_numbers(nested):
    arrays, data = nested
    indices = data.order(0)
    assert_batch(data.batch(indices, 8, data.remainder), arrays, indices.numpy()[8:])
    assert_batch(data.batch(indices, 0, data.size), arrays, indices.numpy())


def test_compiled_function_takes_new_data_without_retracing():
    compiled = tf.function(gather_batch)
    for seed in range(3):
        data = ArrayData(np.random.default_rng(seed).random((10, 2)), batch_size=4, seed=seed)
        indices = data.order(seed)
        batch = compiled(data.arrays, indices, tf.constant(4), tf.constant(4))
        assert_batch(batch, (data.arrays[0].numpy(),), indices.numpy()[4:8])
    assert compiled.experimental_get_tracing_count() == 1


# --- ArrayData: fingerprint -----------------------------------------------------------------------------


def fingerprint(x=None, y=None, batch_size=2, **options) -> str:
    return ArrayData(np.arange(6.0) if x is None else x, y, batch_size, **options).fingerprint()


def test_fingerprint_is_16_hexadecimal_digits_and_reproducible():
    assert len(fingerprint()) == 16
    assert int(fingerprint(), 16) >= 0
    assert fingerprint() == fingerprint()


def test_fingerprint_tells_every_difference():
    x = np.arange(6.0)
    different = [
        fingerprint(),
        fingerprint(x + np.eye(6)[3] * 1e-15),
        fingerprint(x.astype(np.float32)),
        fingerprint(x.view(np.int64)),
        fingerprint(x[:, None]),
        fingerprint(x[::-1].copy()),
        fingerprint(batch_size=3),
        fingerprint(seed=1),
        fingerprint(shuffle=False),
        fingerprint(x, x),
        fingerprint((x, x)),
        fingerprint({"a": x, "b": x}),
        fingerprint({"a": x, "c": x}),
        fingerprint(x, x, sample_weight=x),
    ]
    assert len(set(different)) == len(different)


def test_fingerprint_ignores_how_the_same_data_were_given():
    x, y = np.arange(6.0), np.ones(6)
    assert fingerprint({"a": x, "b": y}) == fingerprint({"b": y, "a": x})
    assert fingerprint(batch_size=None) == fingerprint(batch_size=6)
    assert fingerprint(tf.constant(x)) == fingerprint(x)
    assert fingerprint(np.arange(12.0)[::2] / 2) == fingerprint(x)


@pytest.mark.parametrize("shuffle", ["no", None, 0, np.array([True])])
def test_shuffle_is_a_flag(shuffle):
    """bool("no") is True."""
    with pytest.raises(ValueError, match="shuffle must be True or False, received"):
        ArrayData(np.ones(4), np.ones(4), 2, shuffle=shuffle)
