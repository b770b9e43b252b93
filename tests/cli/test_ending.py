"""The last paragraph of a run."""

import types

import pytest

from trainloop.cli.ending import result_line, say_what_next
from trainloop.runs.directory import RunDirectory
from trainloop.status import Status


@pytest.mark.parametrize(
    ("measured", "line"),
    [
        ({"loss": 1.17884, "accuracy": 0.95278}, "test loss 1.1788, test accuracy 95.28%, 3.4 s"),
        ({"loss": 1.2342e-7, "mae": 123456.0}, "test loss 1.234e-07, test mae 1.235e+05, 3.4 s"),
        ({"loss": 0.0}, "test loss 0, 3.4 s"),
        ({"loss": float("nan")}, "test loss nan, 3.4 s"),
    ],
)
def test_a_result_is_one_line(measured, line):
    assert result_line(measured, 3.44, "test ") == line


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["model.keras", "metrics.jsonl", "curves.png"], "Model, log and curves in "),
        (["model.keras", "metrics.jsonl"], "Model and log in "),
        (["metrics.jsonl"], "Log in "),
        ([], "Nothing in "),
    ],
)
def test_only_what_is_there_is_said_to_be_there(names, files, tmp_path, capsys):
    for name in names:
        (tmp_path / name).write_text("written")
    result = types.SimpleNamespace(status=Status.FINISHED)
    say_what_next(RunDirectory(tmp_path, overwrite=True), result, ["train.py"])
    where, _ = capsys.readouterr().out.splitlines()
    assert where == f"{files}{tmp_path}"


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["scripts/train.py", "--epochs", "3"], r" scripts/train.py --config 'a run/config.json'"),
        (["bin/trainloop", "train", "--config", "b.json"], "bin/trainloop train --config 'a run/config.json'"),
        (["trainloop/__main__.py", "train", "-o", "m=3"], " -m trainloop train --config 'a run/config.json'"),
    ],
)
def test_an_early_end_is_said_and_the_command_is_that_of_the_user(typed, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = types.SimpleNamespace(status=Status.STOPPED, step=7, message="0.1 s are over")
    say_what_next(RunDirectory("a run"), result, typed)
    early, _, again = capsys.readouterr().out.splitlines()
    assert early == "Stopped early after step 7: 0.1 s are over."
    assert again.startswith("Repeat it with: ")
    assert again.endswith(command)
