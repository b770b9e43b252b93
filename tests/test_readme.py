"""What the README shows runs."""

import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_code_blocks_run_in_order(tmp_path, monkeypatch, float32, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["result"].epochs["val_accuracy"][-1] > 0.8
    assert "[" in capsys.readouterr().out


@pytest.mark.parametrize("end", ["pytest", "scripts/train.py"])
def test_the_commands_that_ci_runs_are_there_once(end):
    assert len(re.findall(rf"^python3 -m venv .*{end}$", README, re.MULTILINE)) == 1
    assert end in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_method_is_in_the_table():
    from trainloop import ALGORITHMS

    for cls in ALGORITHMS.values():
        assert f"| `{cls.__name__}` |" in README
