"""Choosing devices and starting several processes."""

import subprocess
import sys
import time

import pytest
from conftest import ROOT

from trainloop.devices import choose_strategy


def test_one_device_needs_no_strategy(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert choose_strategy() is None
    assert choose_strategy(1) is None


@pytest.mark.parametrize("devices", [0, -1, 1.5, "two"])
def test_a_number_of_devices_that_is_none(devices, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="devices must be"):
        choose_strategy(devices)


def test_workers_choose_their_devices_themselves(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(ValueError, match="TF_CONFIG is set"):
        choose_strategy(2)


def launched(tmp_path, program, workers=3):
    """Exit code, lines and seconds of `workers` processes that run a program."""
    (tmp_path / "program.py").write_text(program)
    began = time.monotonic()
    words = [
        sys.executable,
        "scripts/launch.py",
        "--workers",
        str(workers),
        "--grace=1",
        "--",
        str(tmp_path / "program.py"),
        "--x",
        "1",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, sorted(done.stdout.splitlines()), time.monotonic() - began


def test_every_process_is_told_who_it_is(tmp_path):
    program = (
        "import json, os, sys; config = json.loads(os.environ['TF_CONFIG'])\n"
        "print(config['task']['index'], len(set(config['cluster']['worker'])), sys.argv[1:])"
    )
    code, lines, _ = launched(tmp_path, program)
    assert code == 0
    assert lines == [f"[{i}] {i} 3 ['--x', '1']" for i in range(3)]


def test_one_that_fails_ends_all(tmp_path):
    program = (
        "import json, os, sys, time\n"
        "time.sleep(0 if json.loads(os.environ['TF_CONFIG'])['task']['index'] == 1 else 300)\n"
        "sys.exit('this one failed')"
    )
    code, lines, seconds = launched(tmp_path, program)
    assert (code, lines) == (1, ["[1] this one failed"])
    assert seconds < 100


def test_signals_are_passed_on(tmp_path):
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('ready'); time.sleep(0.5); os.kill(os.getppid(), signal.SIGTERM); time.sleep(300)"
    )
    code, lines, seconds = launched(tmp_path, program, workers=2)
    assert (code, lines) == (143, ["[0] ready", "[1] ready"])
    assert seconds < 100
