"""The programs of docs/examples, shortened, against exact solutions."""

import sys

import pytest
from environment import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks.equations import example

# A program -> the share of its steps, and the error that it has to undercut.
SHORTENED = {
    "curvature": (0.45, 0.1),
    "burgers": (0.03, 0.15),
    "helmholtz": (0.015, 0.2),
    "allen_cahn": (0.02, 0.7),
    "inverse_burgers": (0.2, 0.05),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SHORTENED)
def test_an_example_solves_its_equation(name, capsys):
    scale, limit = SHORTENED[name]
    error = example(name).main(scale)
    assert error < limit
    assert f"{error:.2e}" in capsys.readouterr().out


def test_every_example_is_tested():
    programs = {path.stem for path in (ROOT / "docs" / "examples").glob("*.py")}
    assert programs == SHORTENED.keys()
