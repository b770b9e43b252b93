"""What every optimizer in contrib has to pass: the conformance suite. Each has one test of its own beside it."""

import pytest
from environment import ROOT

import trainloop as tl


@pytest.mark.parametrize("name", tl.contrib.__all__)
def test_conformance(name):
    tl.testing.check_optimizer(getattr(tl.contrib, name))


def test_each_has_a_file_of_tests():
    files = {path.stem for path in (ROOT / "trainloop" / "contrib").glob("*.py")} - {"__init__"}
    assert files == {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "contrib").glob("*.py")} - {
        "contrib"
    }
