"""What a method takes, in words."""

import pytest

from trainloop.algorithms import ALGORITHMS, WRAPPERS
from trainloop.runs.plugins import describe

MINE = """
import trainloop as tl

class Mine(tl.SimpleGD):
    \"\"\"Goes downhill.

    Args:
        power (float): of the norm, and of
            nothing else.
        mode, colour: what it looks like: any
            word.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        mode: no argument
    \"\"\"

    def __init__(self, power, mode="a b", colour=None, learning_rate=0.5, **kwargs):
        super().__init__(learning_rate, **kwargs)

class Bare(tl.GlobalVectorOptimizer):
    def init_state(self, x):
        return {}
    def update(self, x, g, state):
        return x, {}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helped.py").write_text(MINE)


@pytest.mark.parametrize("name", [*ALGORITHMS, *WRAPPERS])
def test_every_argument_of_every_method_has_a_default_and_a_meaning(name):
    first, empty, *lines = describe(name).splitlines()
    assert first == f"{name}: {(ALGORITHMS | WRAPPERS)[name].__doc__.splitlines()[0]}"
    assert empty == ""
    options = [line.split(maxsplit=2) for line in lines if line.startswith("  -o ")]
    assert "name" in [option.partition("=")[0] for _, option, _ in options]
    assert all("=" in option and meaning for _, option, meaning in options)
    assert lines[-1].startswith(f"for example: --optimizer {name}")


def test_a_method_of_the_package():
    lines = describe("adam").splitlines()
    assert "  -o beta_1=0.9            decay of the two moments, in [0, 1)." in lines
    assert lines[-1] == "for example: --optimizer adam -o learning_rate=0.001"
    assert max(map(len, lines)) <= 110


def test_a_method_around_another_one():
    lines = describe("sam").splitlines()
    assert lines[2].startswith("  -o inner=METHOD")
    assert lines[-1] == "for example: --optimizer sam -o inner=momentum -o inner.momentum=0.95 -o rho=0.05"


def test_a_method_that_evaluates_takes_no_clipping():
    assert "global_clipnorm" not in describe("lbfgs")


def test_a_method_of_a_user(mine):
    assert describe("helped.py:Mine").splitlines() == [
        "helped.py:Mine: Goes downhill.",
        "",
        "  -o power=..., required   of the norm, and of nothing else.",
        "  -o mode=a b              what it looks like: any word.",
        "  -o colour=None           what it looks like: any word.",
        "  -o learning_rate=0.5     t, positive.",
        "  -o name=simple_gd        for variables and messages.",
        "  -o global_clipnorm=None  positive number or None. g is shortened to this norm before `update` sees it, and",
        "                           after all replicas are summed.",
        "",
        "for example: --optimizer helped.py:Mine -o power=... -o 'mode=a b'",
    ]


def test_a_class_without_a_word(mine):
    lines = describe("helped.py:Bare").splitlines()
    assert lines[0] == "helped.py:Bare: has no docstring"
    assert lines[2].startswith("  -o learning_rate=None    positive number")
    assert lines[-1] == "for example: --optimizer helped.py:Bare"


def test_an_unknown_one_is_said():
    with pytest.raises(ValueError, match="did you mean 'testgd'"):
        describe("testdg")
