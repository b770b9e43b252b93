"""Several processes that train one model together."""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from documentation import run_blocks
from environment import ROOT, rewrite_graphs
from networks import crossentropy
from training_cases import CASES, CONVEX, STEPS, data, net, trained
from workers_at_work import EQUAL

import trainloop as tl
from trainloop.distributed.workers import WorkersError, connect_workers

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """{scenario: what each worker told}, and where the files are under "folder"."""
    folder = tmp_path_factory.mktemp("workers")
    words = [sys.executable, str(ROOT / "tests" / "helpers" / "workers_at_work.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    found = {"folder": folder}
    for name, count in {"two": 2, "four": 4, "cut": 2, "silent": 2}.items():
        files = sorted((folder / name).glob("?.json"))
        assert len(files) == count, done.stderr[-5000:]
        found[name] = [json.loads(file.read_text()) for file in files]
    return found


@pytest.mark.parametrize(
    ("scenario", "name"),
    [(scenario, name) for scenario in ("two", "four") for name in EQUAL],
)
def test_workers_take_the_steps_of_one(told, scenario, name):
    make, batch_size = CASES[name]
    rewrite_graphs(False)
    one, _, result, _ = trained(
        make(), net(convex=name in CONVEX), data(batch_size), STEPS.get(name, 50), metrics=["accuracy"]
    )
    rewrite_graphs(True)
    n, counters = len(one), 6  # of the three kinds of accuracy
    numbers_sent = run_blocks(ROOT / "docs" / "several-devices.md")["numbers_sent"]
    for worker in told[scenario]:
        np.testing.assert_allclose(worker[name]["weights"], one, rtol=0, atol=1e-12)
        assert worker[name]["weights"] == told[scenario][0][name]["weights"]
        assert worker[name]["accuracy"] == result.epochs["accuracy"][-1:].tolist()
        counts = worker[name]["evaluations"]
        sent = numbers_sent(n, counts, result.step, counters)
        assert worker[name]["reduced"] == [counts["f"] + counts.get("Gv", 0), sent]


def test_one_that_is_asked_to_stop_stops_all_after_the_same_step(told):
    stops = [worker["stopped"] for worker in told["two"]]
    assert stops[0] == stops[1]
    assert stops[0][1] == "a signal came to worker 1"


def test_what_differs_between_workers_is_named_on_all(told):
    for worker in told["two"]:
        assert "data seed is 0 there and 1 here" in worker["data"]
        assert "learning_rate is 0.1 there and 1.1 here" in worker["method"]
        assert re.match(
            "after step . workers 0 and 1 differ in the weights, which must be the same bits", worker["drift"]
        )


def test_an_infinity_on_one_worker_is_caught_on_all(told):
    for worker in told["two"]:
        assert worker["infinite"] == [2, "NONFINITE_LOSS"]
        assert worker["finite"]


def test_all_go_back_to_the_checkpoint_of_the_first(told):
    first, second = (worker["rolled back"] for worker in told["two"])
    assert first == second
    assert first[0] == 5


def test_a_run_whose_worker_was_killed_goes_on_with_the_same_bits(told):
    whole, cut = told["two"], told["cut"]
    assert [worker["restored"] for worker in cut] == [8, 8]
    for worker in cut:
        assert worker["end"] == whole[0]["end"]
    logs = [log_of(told["folder"] / name / "metrics.jsonl") for name in ("two", "cut")]
    assert logs[0] == logs[1]
    assert "another worker has died" in (told["folder"] / "cut" / "lost.txt").read_text()


def test_one_that_does_not_answer_is_given_up_after_the_time_out(told):
    for worker in told["silent"]:
        assert "does not answer within the time-out" in worker["silent"]
    assert 2 < told["silent"][0]["seconds"] < 60


def test_a_checkpoint_of_two_workers_is_for_one(told):
    method = tl.TestGD(rad=20.0, storage="sharded")
    loop = tl.TrainLoop(net(normalise=True), method, crossentropy(), metrics=["accuracy"])
    assert loop.restore(told["folder"] / "two" / "checkpoints") == 24
    for variable, there in zip(
        [v for v in loop.model.variables if v.dtype.startswith("float")], told["two"][0]["end"], strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), there)


def log_of(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "peak_memory")} for record in records]


TASK = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "there is no TF_CONFIG"),
        ("{cluster", "TF_CONFIG is not JSON .*expected .*received"),
        ("[1]", "TF_CONFIG needs a cluster of workers"),
        ({"cluster": {"worker": ["localhost:1"]}}, "its task|this one's task"),
        ({"cluster": {"worker": ["localhost"]}, "task": TASK}, "host:port"),
        ({"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 1}}, "this one's task"),
        ({"cluster": {"worker": ["localhost:1"]}, "task": {"type": "ps", "index": 0}}, "this one's task"),
    ],
)
def test_a_configuration_that_says_too_little(monkeypatch, config, says):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ValueError, match=says):
        connect_workers()


def test_a_missing_worker_is_named_within_the_time_out(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [held.getsockname()[1] for held in (one, other)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": addresses}, "task": TASK}))
    with pytest.raises(WorkersError, match=f"not reached within 0.3 seconds: worker 1 at {addresses[1]}"):
        connect_workers(timeout_seconds=0.3)


def test_one_that_is_reached_and_then_silent_is_not_waited_for_without_end():
    """TensorFlow would, for a worker that dies before the two are connected; this one only takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as free:
        ports = free.getsockname()[1], silent.getsockname()[1]
        free.close()
        config = {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": TASK}
        done = subprocess.run(
            [sys.executable, "-c", "import trainloop; trainloop.connect_workers(timeout_seconds=2)"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(config)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert "Timeout (0:00:02)!" in done.stderr
    assert "in connect_workers" in done.stderr


def test_a_port_in_use_is_named(monkeypatch):
    with socket.create_server(("", 0)) as held:
        port = held.getsockname()[1]
        config = {"cluster": {"worker": [f"127.0.0.1:{port}", "127.0.0.1:1"]}, "task": TASK}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        with pytest.raises(WorkersError, match=f"port {port} of worker 0 in TF_CONFIG cannot be used"):
            connect_workers(timeout_seconds=0.3)
