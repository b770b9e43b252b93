"""--then as a user meets it: what is recorded, what is run, and what goes on after an interruption."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from environment import ROOT

import trainloop as tl
from trainloop.hooks.metrics_file import read_run_log

TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]

# Each step is an epoch.
DATA = ["--dataset", "wine", "--model", "softmax_regression", "--batch-size", "full"]
ADAM = ["--optimizer", "adam", "-o", "learning_rate=0.01", "--steps", "5"]
ALL = [*DATA, *ADAM, "--then", "lbfgs:m=5,--steps=4"]


def config_in(folder):
    return json.loads((folder / "config.json").read_text())


def records(folder):
    """metrics.jsonl, but for the clock and memory."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record | {"seconds": 0, "peak_memory": 0} for record in found]


def final_weights(folder):
    """Of the last checkpoint, which has the state of the optimizer too."""
    newest = max((folder / "checkpoints").glob("step-*"))
    with np.load(newest / "arrays.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def assert_same_run(folder, other):
    assert records(folder) == records(other)
    arrays, others = final_weights(folder), final_weights(other)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_phases_are_recorded_and_are_those_of_the_loop(tmp_path, train_here):
    code, out, _ = train_here(*ALL, "--run-dir", "a")
    assert code == 0
    assert out[0].startswith("softmax_regression on wine with adam, then lbfgs: n = 42 parameters")
    config = config_in(tmp_path / "a")
    assert (config["steps"], config["then"]) == (5, ["lbfgs:m=5,--steps=4"])
    assert [one["name"] for one in config["optimizer_config"]] == ["adam", "lbfgs"]
    log = read_run_log(tmp_path / "a" / "metrics.jsonl")
    assert log.history["phase"].tolist() == [0] * 5 + [1] * 4
    assert (log.end["status"], log.end["step"]) == ("FINISHED", 9)

    parts = tl.assemble("wine", "softmax_regression")
    phases = [tl.Phase(tl.Adam(0.01), steps=5), tl.Phase(tl.LBFGS(m=5), steps=4)]
    loop = tl.TrainLoop(parts.model, phases, parts.loss, metrics=parts.metrics)
    by_hand = loop.run(tl.ArrayData(*parts.train, None, 0)).history
    np.testing.assert_array_equal(log.history["loss"].astype("float32"), by_hand["loss"].astype("float32"))


@pytest.mark.thorough
def test_a_run_that_ended_in_any_phase_goes_on_with_the_same_bits(tmp_path, train_here):
    assert train_here(*ALL, "--run-dir", "whole")[0] == 0
    for evaluations, phase in (("2", 0), ("7", 1)):
        code, *_ = train_here(*ALL, "--run-dir", "cut", "--resume", "--max-evaluations", evaluations)
        history = read_run_log(tmp_path / "cut" / "metrics.jsonl").history
        assert (code, history["phase"][-1], len(history["step"]) < 9) == (0, phase, True)
    assert train_here("--run-dir", "cut", "--resume", "--max-evaluations", "1000")[0] == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.thorough
def test_a_last_phase_may_get_more_steps_and_nothing_else(tmp_path, train_here):
    assert train_here(*DATA, *ADAM, "--then", "lbfgs:m=5,--steps=7", "--run-dir", "whole")[0] == 0
    assert train_here(*ALL, "--run-dir", "more")[0] == 0
    assert train_here("--run-dir", "more", "--resume", "--then", "lbfgs:m=5,--steps=7")[0] == 0
    assert_same_run(tmp_path / "more", tmp_path / "whole")
    assert config_in(tmp_path / "more")["then"] == ["lbfgs:m=5,--steps=7"]
    code, _, (line,) = train_here("--run-dir", "more", "--resume", "--then", "lbfgs:m=6,--steps=9")
    assert (code, "then was ['lbfgs:m=5,--steps=7'], here it is ['lbfgs:m=6,--steps=9']" in line) == (2, True)
    code, _, (line,) = train_here("--run-dir", "more", "--resume", "--steps", "6")
    assert (code, "another list of phases: 0 steps was 5, here it is 6" in line) == (2, True)


@pytest.mark.thorough
def test_a_run_that_is_killed_in_one_phase_and_stopped_in_the_next_has_the_same_bits(tmp_path):
    words = [*DATA, "--optimizer", "adam", "--steps", "100", "--then", "adam:learning_rate=0.1,--steps=100"]
    words += ["--checkpoint-steps", "10", "--deterministic", "--quiet"]
    again = [*TRAIN, *words, "--run-dir", "cut", "--resume"]
    for number, step, phase in ((signal.SIGKILL, 20, 0), (signal.SIGTERM, 120, 1)):
        end_at(subprocess.Popen(again, cwd=tmp_path), tmp_path / "cut" / "metrics.jsonl", step, number)
        assert read_run_log(tmp_path / "cut" / "metrics.jsonl").history["phase"][-1] == phase
    for command in (again, [*TRAIN, *words, "--run-dir", "whole"]):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def end_at(process, log, step, number):
    """Send a signal when a log has a step, and wait for the end."""
    until = time.monotonic() + 200
    while not (log.exists() and f'"step": {step},' in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=100) in (-signal.SIGKILL, 128 + signal.SIGTERM)


@pytest.mark.thorough
def test_a_run_of_phases_is_repeated_from_its_config(tmp_path, train_here):
    assert train_here(*ALL, "--run-dir", "a")[0] == 0
    code, out, err = train_here("--config", "a/config.json", "--run-dir", "b")
    assert (code, out[0]) == (0, "repeats a/config.json")
    assert not [line for line in err if "float64" not in line]
    assert records(tmp_path / "a") == records(tmp_path / "b")
    code, out, _ = train_here("--config", "a/config.json", "--then", "lbfgs:m=6", "--dry-run")
    assert out[0] == "repeats a/config.json, but with then lbfgs:m=6 instead of lbfgs:m=5,--steps=4"


def test_a_dry_run_has_every_phase(train_here):
    code, out, _ = train_here(*DATA, *ADAM, "--then", "momentum:--steps=9", "--then", "lbfgs", "--dry-run")
    assert code == 0
    assert [line.partition("(")[0] for line in out if line.startswith("phase ")] == [
        "phase 0, 5 steps at most: Adam",
        "phase 1, 9 steps at most: Momentum",
        "phase 2, 1,000 steps at most: LBFGS",
    ]
    assert "steps: 1,014 of 142 samples, 1 in an epoch" in out
    assert out.count("state for n = 42 parameters") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*DATA, "--optimizer", "adam", "--then", "lbfgs"], "phase 0, adam, needs a number of steps"),
        ([*ADAM, "--then", "lbgs"], "unknown optimizer 'lbgs' (did you mean 'lbfgs'?)"),
        ([*ADAM, "--then", "lbfgs:mm=3"], "LBFGS has no option 'mm' (did you mean 'm'?)"),
        ([*ADAM, "--then", "lbfgs:--jit"], "the only option of a phase is --steps=N, received --jit"),
        ([*ADAM, "--then", "momentum", "-o", "momentum=0.5"], "-o belongs to --optimizer and stands behind --then"),
        ([*ADAM, "--then", "lbfgs", "--steps", "9"], "--steps belongs to --optimizer and stands behind --then"),
        ([*DATA, *ADAM, "--then", "lbfgs", "--epochs", "3"], "--epochs 3 are 3 steps, and lbfgs would begin after 5"),
        ([*DATA, *ADAM, "--then", "testgd:storage=factored", "--jit"], "storage='dense'"),
    ],
)
def test_bad_phases_are_one_line_before_a_file_is_written(arguments, words, tmp_path, train_here):
    code, _, (line,) = train_here(*arguments, "--run-dir", "a")
    assert (code, words in line) == (2, True), line
    assert list(tmp_path.iterdir()) == []
