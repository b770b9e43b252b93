"""What the README shows runs."""

import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def run_blocks(path):
    """What the code blocks of a page define, run in order."""
    names = {"__name__": path.stem}
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, path.name, "exec"), names)
    return names


def test_code_blocks_run_in_order(tmp_path, monkeypatch, float32, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(ROOT / "README.md")
    assert names["result"].epochs["val_accuracy"][-1] > 0.8
    assert "[" in capsys.readouterr().out


def test_the_page_on_the_shared_matrix_runs(float32, capsys):
    names = run_blocks(ROOT / "docs" / "shared-matrix.md")
    assert names["found"].status.name == "CERTIFIED"
    assert "during a step" in capsys.readouterr().out


def test_the_page_on_several_devices_runs(capsys):
    run_blocks(ROOT / "docs" / "several-devices.md")
    assert "1 Gbit/s, batch 64: 1 workers" in capsys.readouterr().out


@pytest.mark.parametrize("end", ["pytest", "scripts/train.py"])
def test_the_commands_that_ci_runs_are_there_once(end):
    assert len(re.findall(rf"^python3 -m venv .*{end}$", README, re.MULTILINE)) == 1
    assert end in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_method_is_in_the_table():
    from trainloop import ALGORITHMS

    for cls in ALGORITHMS.values():
        assert f"| `{cls.__name__}` |" in README
