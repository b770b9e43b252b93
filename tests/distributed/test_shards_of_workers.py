"""Two workers, processes of their own, that share matrices: started once, and what they report is looked at here."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import sharded_worker
import tensorflow as tf
from environment import ROOT

from trainloop import TestGD
from trainloop.checkpoints import files as checkpoint_files
from trainloop.distributed.shards import shard_over
from trainloop.matrices import sharded_panels

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_graph_rewriting")]

CASES = [name for name in vars(sharded_worker) if name.startswith("case_")]
SECONDS = 300


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the two have left their reports."""
    folder = tmp_path_factory.mktemp("workers")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    running = []
    for i in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})
        environment = {**os.environ, "TF_CONFIG": config, "PYTHONPATH": path}
        with open(folder / f"log_{i}.txt", "wb") as log:
            command = [sys.executable, str(ROOT / "tests" / "helpers" / "sharded_worker.py"), str(folder)]
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        for process in running:
            process.wait(timeout=SECONDS)
    finally:
        for process in running:
            process.kill()
    return folder


@pytest.mark.parametrize("case", CASES)
def test_both_workers_find(folder, case):
    for i in range(2):
        report = folder / f"report_{i}.json"
        log = (folder / f"log_{i}.txt").read_text(encoding="utf-8", errors="replace")
        assert report.exists(), log[-3000:]
        assert json.loads(report.read_text(encoding="utf-8")).get(case, log[-3000:]) == "ok"


@pytest.mark.parametrize("name", sharded_worker.METHODS)
def test_methods_take_the_steps_they_take_alone_and_both_workers_the_same_to_the_bit(folder, name):
    x, other = (np.load(folder / f"{name}_{i}.npy") for i in range(2))
    assert x.tobytes() == other.tobytes()
    alone = sharded_worker.steps(sharded_worker.METHODS[name]("dense"), 12)
    np.testing.assert_allclose(x, alone, rtol=0, atol=1e-9)


@pytest.fixture(autouse=True)
def _as_many_panels(monkeypatch):
    monkeypatch.setattr(sharded_panels, "_PANELS", 6)


@pytest.mark.parametrize("shards", [1, 3])
def test_what_two_workers_saved_is_the_same_matrix_to_the_bit_in_other_shards(folder, shards):
    with shard_over(shards):
        optimizer = TestGD(rad=20.0, storage="sharded:2")
        with checkpoint_files.Saved(folder / "checkpoint") as saved:
            optimizer.build([tf.Variable(saved.meta["x"], dtype=tf.float64)])
            variables = optimizer.resumable_variables()
            assert set(saved.names) == set(variables)
            for name, variable in variables.items():
                variable.assign(saved.read(name))
    np.testing.assert_array_equal(optimizer.state["B"].to_dense(), np.load(folder / "B.npy"))


def test_what_two_workers_saved_becomes_dense(folder):
    optimizer = TestGD(rad=20.0, storage="dense:0")
    with checkpoint_files.Saved(folder / "checkpoint") as saved:
        optimizer.build([tf.Variable(saved.meta["x"], dtype=tf.float64)])
        names = set(saved.names) - {"skipped_steps", "last_failure"}
        optimizer.load_own_variables({name: saved.read(name) for name in names})
    np.testing.assert_allclose(optimizer.state["B"].to_dense(), np.load(folder / "B.npy"), rtol=0, atol=1e-15)
