"""What all programs share, on a terminal: a word while TensorFlow loads, and Ctrl-C at that time."""

import os
import pty
import signal
import subprocess
import sys

import pytest
from environment import ROOT


@pytest.fixture
def on_a_terminal():
    """Runs train.py --list on a terminal: (process, function that reads what it shows until some text or its end)."""
    ours, theirs = pty.openpty()
    words = [sys.executable, str(ROOT / "scripts" / "train.py"), "--list"]
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)

    def read(until=None):
        shown = b""
        while until is None or until not in shown:
            try:
                shown += os.read(ours, 1024)
            except OSError:  # the terminal is closed
                break
        return shown.decode()

    yield process, read
    process.kill()
    process.wait()
    os.close(ours)


def test_a_terminal_has_a_word_while_tensorflow_loads_and_not_longer(on_a_terminal):
    process, read = on_a_terminal
    shown = read()
    assert process.wait(60) == 0
    before, erased, after = shown.partition("\r\033[K")
    assert (before, erased) == ("loading TensorFlow ...", "\r\033[K")
    assert after.startswith("data sets")


def test_ctrl_c_while_tensorflow_loads_ends_the_program(on_a_terminal):
    process, read = on_a_terminal
    read(until=b"...")
    process.send_signal(signal.SIGINT)
    assert read().splitlines()[-1] == "Interrupted."
    assert process.wait(60) == 130
