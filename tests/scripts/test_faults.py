"""What `scripts/faults.py` does to runs is survived."""

import subprocess
import sys

import pytest
from environment import ROOT


@pytest.mark.thorough
def test_kills_and_other_faults_are_survived():
    command = [sys.executable, str(ROOT / "scripts" / "faults.py"), "--kills", "4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "DIFFERENT" not in done.stdout
    assert "NOT SURVIVED" not in done.stdout
    assert "kills survived: 4 of 4; faults survived: 16 of 16" in done.stdout, done.stderr
