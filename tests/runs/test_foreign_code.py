"""Code that a config.json names runs only where it is what was recorded, or where it is named again."""

import sys

import pytest

from trainloop.runs import foreign_code, plugins, user_code

SETTINGS = {"optimizer": "adam", "model": "mine.py:build", "dataset": "mine.py:load", "loss": None, "options": ()}


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """A file, a package and a module of the current folder, which all leave a trace when they are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    trace = "open('ran', 'a').write(__name__ + ' ')\ndef load(): pass\n"
    (tmp_path / "mine.py").write_text(trace)
    (tmp_path / "boxed").mkdir()
    for name in ("__init__", "inside"):
        (tmp_path / "boxed" / f"{name}.py").write_text(trace)
    yield tmp_path
    assert not (tmp_path / "ran").exists()


def check(typed=(), recorded=None, **settings):
    settings = {**SETTINGS, **settings}
    typed = {name: settings[name] for name in typed}
    return foreign_code.check("a/config.json", settings, typed, recorded)


def test_what_was_recorded_is_named_and_may_run():
    recorded = user_code.digests("mine.py:build", "boxed.inside:Mine")
    lines = check(recorded=recorded, options=("inner=boxed.inside:Mine",))
    digest = recorded["mine.py"]
    assert lines[0] == f"runs mine.py (SHA-256 {digest}...), because a/config.json names it"
    assert [line.split()[1] for line in lines] == ["mine.py", "boxed.inside"]


@pytest.mark.parametrize("recorded", [None, {}, {"mine.py": "0" * 16}, {"mine.py": None}, [], "mine.py"])
def test_anything_else_does_not_run(recorded):
    words = "mine.py was (edited since it began|not recorded there); look at it, and name it again to run it: --dataset"
    with pytest.raises(ValueError, match=f"a/config.json names code that is not what its run recorded: {words}"):
        check(recorded=recorded)


def test_an_optimizer_inside_of_another_counts_too():
    with pytest.raises(ValueError, match=r"boxed was not recorded .*: -o inner=boxed:Mine"):
        check(("model",), options=("inner=boxed:Mine",))


def test_an_optimizer_of_a_later_phase_counts_too():
    then = ("adam:--steps=2", "boxed:Mine:k=1")
    with pytest.raises(ValueError, match=r"boxed was not recorded .*: --then adam:--steps=2 --then boxed:Mine:k=1"):
        check(("model", "dataset"), then=then)
    assert check(("model", "dataset", "then"), then=then) == []


def test_what_is_named_on_the_command_line_needs_no_record():
    assert check(("model",)) == []
    assert check(("model", "options"), options=("inner=boxed:Mine",)) == []


def test_a_file_that_is_not_there_is_named(mine):
    (mine / "mine.py").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"a/config\.json names mine\.py:load, and there is no file of mine\.py"
    ):
        check(recorded={"mine.py": "missing"})


@pytest.mark.parametrize(
    "text", ["os:abort", "subprocess:run", "builtins:exec", "posix:_exit", "test.support:gc_collect"]
)
@pytest.mark.parametrize("find", [plugins.find_data, plugins.find_model, plugins.find_loss, plugins.find_optimizer])
def test_pythons_own_functions_are_none_of_these(find, text):
    with pytest.raises(
        ValueError, match=r"is from a module of Python itself, which has no .* of this kind; give your own"
    ):
        find(text)


@pytest.mark.parametrize("find", [plugins.find_data, plugins.find_model, plugins.find_loss])
def test_nor_are_they_where_a_file_has_imported_them(find, mine):
    (mine / "theirs.py").write_text("from os import abort\n")
    with pytest.raises(ValueError, match=r"theirs\.py:abort is <built-in function abort> of Python itself"):
        find("theirs.py:abort")


def test_a_class_that_is_no_loss_is_not_made(mine):
    (mine / "theirs.py").write_text("class Loss:\n    def __init__(self):\n        open('ran', 'w')\n")
    with pytest.raises(ValueError, match=r"theirs\.py:Loss must be a function \(targets, predictions\)"):
        plugins.find_loss("theirs.py:Loss")
