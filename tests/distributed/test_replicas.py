"""Training on several replicas of one process."""

import subprocess
import sys

import pytest
from environment import ROOT

pytestmark = pytest.mark.thorough


def test_cases_in_a_process_that_has_two_devices():
    """How many devices a process has is decided before TensorFlow starts, and for all of its tests."""
    words = ["-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "tests/helpers/replica_cases.py"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
