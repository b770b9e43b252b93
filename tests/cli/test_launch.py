"""Choosing devices and starting several processes."""

import os
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from environment import ROOT

from trainloop import load
from trainloop.distributed.workers import choose_strategy
from trainloop.hooks.metrics_file import read_run_log


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
        "print('ready'); time.sleep(0.5)\n"
        "if '\"index\": 0' in os.environ['TF_CONFIG']: os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(300)"
    )
    code, lines, seconds = launched(tmp_path, program, workers=2)
    assert code == 143
    assert "[0] ready" in lines
    assert seconds < 100


BY_TWO_WORKERS = ("scripts/launch.py", "--workers", "2", "--")


def done(*words):
    """What a program prints that ends well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, *words]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.thorough
def test_a_run_of_two_workers_goes_on_with_two_devices(tmp_path):
    folder = str(tmp_path / "run")
    train = ["scripts/train.py", "--model", "softmax_regression", "--optimizer", "simplegd", "--run-dir", folder]
    shown = done(*BY_TWO_WORKERS, *train, "--steps", "30")
    assert re.search(r"\[0\] test loss .*\n\[0\] Model, log and curves in .*\n\[0\] Repeat it with: .*\n$", shown)
    shown = done(*train, "--steps", "40", "--devices", "2", "--resume")
    assert re.search("continues after step 30\n(.*\n)*test loss .*\n(.*\n){2}$", shown)
    log = read_run_log(tmp_path / "run" / "metrics.jsonl")
    assert log.history["step"].tolist() == list(range(1, 41))
    assert np.all(np.isfinite(log.history["loss"]))


@pytest.mark.thorough
def test_two_workers_describe_a_run_once_and_leave_its_best_point(tmp_path, float32):
    options = ["--model", "softmax_regression", "--optimizer", "bestsofar", "-o", "inner=simplegd"]
    options += [
        "-o",
        "inner.learning_rate=5",
        "--batch-size",
        "full",
        "--steps",
        "12",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    shown = done(*BY_TWO_WORKERS, "scripts/train.py", *options, "--dry-run").splitlines()
    assert len([line for line in shown if "data: DataSplit(digits" in line]) == 1
    assert not (tmp_path / "run").exists()

    done(*BY_TWO_WORKERS, "scripts/train.py", *options)
    log = read_run_log(tmp_path / "run" / "metrics.jsonl")
    losses = log.history["loss"]
    assert losses[-1] > losses.min()  # such long steps lead up, too
    left = keras.models.load_model(tmp_path / "run" / "model.keras", compile=False)
    data, crossentropy = load("digits"), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(crossentropy(data.y_train, left(data.x_train))) == pytest.approx(losses.min(), rel=1e-5)
