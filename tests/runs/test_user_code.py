"""A user's files and modules, and where their mistakes are."""

import importlib
import re
import sys

import pytest

from trainloop.runs import user_code

MINE = """
runs = []

def divide(a, b):
    return a / b

def passes_on(a):
    return divide(a, 0)

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return "mine.py"


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("mine.py:f", True),
        ("/some where/my-file.py:f", True),
        ("package.module:Name", True),
        ("digits", False),
        ("a/folder:f", False),
        (r"C:\arrays.npz", False),
        ("mine.py", False),
        ("mine.py:", False),
        ("mine.py:f()", False),
        ("3d:f", False),
    ],
)
def test_what_refers_to_an_object(text, yes):
    assert user_code.is_reference(text) is yes


def test_objects_of_files_and_modules(mine):
    assert user_code.find(f"{mine}:number", callable, "functions") == 3
    assert user_code.find("re:compile", callable, "functions") is re.compile


def test_a_file_runs_once(mine):
    user_code.find(f"{mine}:runs", callable, "functions").append(1)
    assert user_code.find(f"{mine}:runs", callable, "functions") == [1]


def test_files_of_one_name_are_told_apart(mine, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.py").write_text("number = 4")
    assert user_code.find("mine.py:number", callable, "functions") == 3
    assert user_code.find("below/mine.py:number", callable, "functions") == 4


def test_a_file_that_fails_leaves_no_module_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text("x = 1\nx / 0\n")
    with pytest.raises(ValueError, match=r"importing half\.py failed at .*half\.py:2: ZeroDivisionError"):
        user_code.find("half.py:x", callable, "functions")
    assert "half" not in sys.modules


def test_a_file_that_ends_the_program_does_not_end_this_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("import sys\nsys.exit('no arguments')\n")
    with pytest.raises(ValueError, match=r"importing script\.py failed at .*script\.py:2: SystemExit: no arguments"):
        user_code.find("script.py:x", callable, "functions")


def test_a_name_that_is_not_there(mine):
    with pytest.raises(ValueError, match=r"no 'divid' \(did you mean 'divide'\?\); its functions: divide, passes_on"):
        user_code.find(f"{mine}:divid", callable, "functions")


def test_a_mistake_is_one_line_with_the_users_place(mine):
    function = user_code.find(f"{mine}:passes_on", callable, "functions")
    with pytest.raises(ValueError, match=r"^mine\.py:passes_on at .*mine\.py:5 in divide: ZeroDivisionError: [^\n]*$"):
        user_code.call("mine.py:passes_on", function, 1)
    with pytest.raises(ValueError, match=r"^mine\.py:passes_on: TypeError: .*positional argument"):
        user_code.call("mine.py:passes_on", function)


# --- A user's file takes the place of no other module -------------------------------------------------------


@pytest.mark.parametrize("name", ["h5py", "tensorflow", "json", "random"])
def test_a_file_with_the_name_of_a_library_leaves_that_alone(name, mine, tmp_path):
    before = importlib.import_module(name)
    (tmp_path / f"{name}.py").write_text("number = 5")
    assert user_code.find(f"{name}.py:number", callable, "functions") == 5
    assert importlib.import_module(name) is before
    assert sys.modules[name] is before


def test_modules_of_the_current_folder_come_last(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "a_module_of_mine.py").write_text("number = 6")
    (tmp_path / "tabnanny.py").write_text("number = 7")  # of the standard library, and imported by nobody
    assert user_code.find("a_module_of_mine:number", callable, "functions") == 6
    assert "number" not in vars(importlib.import_module("tabnanny"))
    with pytest.raises(ValueError, match=r"tabnanny is tabnanny\.py in this folder and .* elsewhere; give the file"):
        user_code.find("tabnanny:number", callable, "functions")
    assert user_code.find("tabnanny.py:number", callable, "functions") == 7


def test_a_digest_runs_nothing(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "box").mkdir()
    for name in ("__init__", "inside"):
        (tmp_path / "box" / f"{name}.py").write_text("1 / 0")
    digests = user_code.digests("box.inside:f", "box:f", "nowhere:f", "mine.py:f", "digits")
    assert digests["box.inside"] == digests["box"] != "missing"
    assert digests["nowhere"] == "missing"
    assert list(digests) == ["box", "box.inside", "mine.py", "nowhere"]
