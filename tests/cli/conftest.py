"""What the tests of `trainloop train` share."""

import runpy
import sys

import pytest
from environment import ROOT


@pytest.fixture
def train_here(tmp_path, monkeypatch, capfd, float32):
    """Runs train.py in this process, because starting TensorFlow takes seconds: (exit code, lines out, lines err)."""

    def run(*arguments, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        monkeypatch.syspath_prepend(ROOT / "scripts")
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        printed = capfd.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run
