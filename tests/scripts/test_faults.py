"""What `scripts/faults.py` does to runs is survived."""

import re
import subprocess
import sys

import pytest
from environment import ROOT


@pytest.mark.thorough
def test_kills_and_other_faults_are_survived():
    command = [sys.executable, str(ROOT / "scripts" / "faults.py"), "--short"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "DIFFERENT" not in done.stdout
    assert "NOT SURVIVED" not in done.stdout
    counts = re.search(r"kills survived: (\d+) of (\d+); faults survived: (\d+) of (\d+)", done.stdout)
    assert counts, done.stderr
    survived, kills, good, faults = map(int, counts.groups())
    assert (survived, good) == (kills, faults)
    assert (kills >= 5, faults >= 15) == (True, True)
