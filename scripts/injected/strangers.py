"""Files from strangers: logs, settings, code and data that are not what they should be."""

import gzip
import json
import os
import pathlib
import struct
import sys
import zipfile

import numpy as np

from injected import each, fault
from injected.runs import every_step_once, expect, make_loop, raises, records, saved

LINES = {
    "not_utf8": lambda line: line.replace(b'"loss"', b'"lo\xffs"'),
    "nested": lambda line: b"[" * (len(line) - 1) + b"\n",
    "with_text_for_a_number": lambda line: line.replace(b'"epoch": 1', b'"epoch":""'),
    "joined_with_the_next": lambda line: line[:-1] + b" ",
    "cut_in_two": lambda line: line[:10] + b"\n" + line[11:],
    "of_noughts": lambda line: bytes(len(line) - 1) + b"\n",
}


@each(LINES)
def damaged_line_in_the_log(folder, change):
    saved(folder)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(True)
    lines[9] = change(lines[9])
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))
    loop, data = make_loop(folder)
    expect(loop.restore(folder / "checkpoints") == 60, "does not continue from step 60")
    loop.run(data, until_step=80)
    from trainloop.hooks import read_run_log

    steps = read_run_log(folder / "metrics.jsonl").history["step"].tolist()
    lost = set(range(1, 81)) - set(steps)
    expect(lost in ({10}, {10, 11}), f"steps {sorted(lost)} are missing")


@fault
def log_with_a_tail_of_noughts(folder):
    """As a file system leaves it after the power has failed."""
    saved(folder)
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "st' + bytes(5000))
    loop, data = make_loop(folder)
    loop.restore(folder / "checkpoints")
    loop.run(data, until_step=80)
    every_step_once(folder, 80)


SETTINGS = {
    "nested": b"[" * 100_000,
    "a_list": b"[]",
    "not_json": b"\xff\xfe\x00",
    "wrong_options": b'{"options": {"rad": 3}}',
    "wrong_versions": b'{"versions": [1]}',
    "wrong_code": b'{"code": "mine.py"}',
    "a_huge_number": b'{"seed": ' + b"9" * 10_000 + b"}",
}


@each(SETTINGS)
def config_that_is(folder, content):
    from trainloop.runs import config
    from trainloop.runs.directory import RunDirectory

    path = folder / "config.json"
    path.write_bytes(content)
    message = raises(ValueError, "config.json", lambda: config.read(path))
    expect("\n" not in message, "it is more than one line")
    if content[:1] != b"{" or b"9999" in content:
        directory = RunDirectory(folder, resume=True)
        raises(ValueError, "config.json is damaged|other settings", lambda: directory.resume({}, lambda _: None))


@fault
def config_that_is_a_pipe(folder):
    from trainloop.runs import config

    os.mkfifo(folder / "config.json")
    raises(ValueError, "is no file but a folder, a pipe or a device", lambda: config.read(folder / "config.json"))


@fault
def config_with_values_of_other_types(folder):
    import click

    from trainloop.cli.recorded import check_type
    from trainloop.cli.train import train

    params = {p.name: p for p in train.params}
    context = click.Context(train)
    wrong = {"seed": ["1", True, 1.5, None, -1, 10**30], "jit": ["yes", 1, None], "dataset": [5, None, ["digits"]]}
    wrong |= {
        "options": ["rad=3", [3], None],
        "then": ["lbfgs", [3], None, ["lbfgs:--steps=0"], ["lbfgs:--jit"]],
        "epochs": [0, "many", 1.0],
        "f_target": ["x", True],
        "batch_size": [0, "no"],
    }
    for name, values in wrong.items():
        for value in values:
            raises(ValueError, f"{name}", lambda n=name, v=value: check_type(context, "config.json", params[n], v))


CODE = {
    "of_python_itself": ({"dataset": "os:abort"}, {"os": "0" * 16}),
    "that_was_not_recorded": ({"dataset": "theirs.py:load"}, {}),
    "that_was_edited": ({"model": "theirs.py:load"}, {"theirs.py": "0" * 16}),
    "in_an_option": ({"options": ["inner=theirs.py:load"]}, None),
    "in_a_package": ({"loss": "theirs.inner:loss"}, {"theirs": "0" * 16}),
}


@each(CODE)
def code_unasked(folder, case):
    """Nothing of it runs."""
    from trainloop.runs import foreign_code

    settings, recorded = case
    os.chdir(folder)
    (folder / "theirs").mkdir()
    for path in (folder / "theirs.py", folder / "theirs" / "__init__.py", folder / "theirs" / "inner.py"):
        path.write_text("open('ran', 'w')")
    words = "names code that is not what its run recorded"
    raises(ValueError, words, lambda: foreign_code.check("config.json", settings, {}, recorded))
    expect(not (folder / "ran").exists(), "it ran")


@fault
def functions_that_are_no_data(folder):
    from trainloop.runs import plugins

    os.chdir(folder)
    (folder / "theirs.py").write_text("from os import abort\nfrom shutil import rmtree\n")
    for text in ("os:abort", "posix:abort", "shutil:rmtree", "theirs.py:abort", "theirs.py:rmtree"):
        for find in (plugins.find_data, plugins.find_model, plugins.find_loss, plugins.find_optimizer):
            raises(ValueError, "of Python itself", lambda f=find, t=text: f(t))


@fault
def files_with_names_of_libraries(folder):
    import h5py
    import keras

    from trainloop.runs import user_code

    os.chdir(folder)
    for name in ("h5py", "tensorflow", "json"):
        (folder / f"{name}.py").write_text("number = 5")
        expect(user_code.find(f"{name}.py:number", callable, "functions") == 5, "the file was not used")
    loop, data = make_loop(folder)
    loop.run(data, steps=5)
    loop.model.save(folder / "model.keras")
    expect(len(keras.models.load_model(folder / "model.keras").layers) == 4, "the model is not whole")
    expect(sys.modules["h5py"] is h5py, "the library was replaced")


def _npz(path, **changes):
    arrays = {"x_train": np.zeros((6, 4, 4), "uint8"), "y_train": np.arange(6) % 3}
    arrays |= {"x_test": np.zeros((3, 4, 4), "uint8"), "y_test": np.arange(3)}
    np.savez(path, **(arrays | changes))
    return path


def _with_header(path, **header):
    import io

    array = np.zeros((6, 4, 4), "uint8")
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array) | header)
    _npz(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, file.getvalue() + array.tobytes() if name == "x_train.npy" else content)
    return path


def _pipe(path):
    os.mkfifo(path)
    return path


def _bomb(path):
    folder = pathlib.Path(path).with_suffix("")
    folder.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        rank = int(name[-1])
        header = struct.pack(f">{1 + rank}I", 0x800 + rank, *[2**31] * rank)
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + bytes(1000)))
    return folder


DATA = {
    "label_of_a_billion": lambda path: _npz(path, y_train=np.array([0, 1, 2, 0, 1, 10**9])),
    "header_for_more_than_there_is": lambda path: _with_header(path, shape=(10**12, 28, 28)),
    "header_of_objects": lambda path: _with_header(path, descr="|O"),
    "array_of_objects": lambda path: _npz(path, x_train=np.array([[1, 2], [3]], dtype=object)),
    "array_of_records": lambda path: _npz(path, x_train=np.zeros(6, [("a", float), ("b", [("c", int)])])),
    "pipe": _pipe,
    "few_bytes_that_unpack_to_many": _bomb,
    "names_that_move_the_cursor": lambda path: _npz(path, **{"\x1b[2J": np.zeros(3), "y_train": np.zeros((2, 2, 2))}),
}


@each(DATA)
def data_with(folder, make):
    from trainloop.data import load

    path = make(folder / "a\x1b[2Jb.npz")
    message = raises(ValueError, "received", lambda: load(path))
    expect(message.isprintable(), f"it is not one line to print: {message!r}")


@fault
def byte_order_marks(folder):
    """They are read, wherever an editor puts them."""
    from trainloop import files

    newest = saved(folder)
    for path in (folder / "metrics.jsonl", newest / "meta.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (folder / "config.json").write_bytes(json.dumps({"a": 1}).encode("utf-16"))
    expect(files.read_json(folder / "config.json") == {"a": 1}, "the settings were not read")
    (folder / "metrics.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes()[3:])
    loop, _ = make_loop(folder)
    expect(loop.restore(folder / "checkpoints") == 60, "does not continue from step 60")
    expect(records(folder)[0]["step"] == 1, "the log is another one")
