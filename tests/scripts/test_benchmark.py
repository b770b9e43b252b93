"""Tests of the benchmarks: their reports, and that what they measure works; nothing here is timed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from environment import ROOT
from networks import blobs, crossentropy, dense_net

import trainloop as tl

sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import benchmarking, curvature, equations, flatten, least_squares, libraries, reporting


def test_ratios_are_of_medians():
    rows = reporting.compared("group", {"trainloop": [1.0, 2.0, 9.0], "other": [4.0, 8.0, 5.0]}, "trainloop", scale=10)
    assert rows[1] == {"group": "group", "name": "other", "median": 50, "low": 40, "high": 80, "ratio": 0.4}
    assert rows[0]["ratio"] == 1


def test_jobs_alternate_and_the_first_round_does_not_count():
    calls = []
    seconds = reporting.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == list("abababab")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_report_is_a_table_a_file_and_a_chart(tmp_path, capsys):
    rows = [{"group": "net", "name": "trainloop", "ms": 1.234}, {"group": "net", "name": "other"}]
    reporting.publish(tmp_path / "new", "speed", "A title", rows, {"ms": ("ms", ".2f")}, "ms")
    printed = capsys.readouterr().out
    assert "A title" in printed
    assert "1.23" in printed
    saved = json.loads((tmp_path / "new" / "speed.json").read_text())
    assert saved["rows"] == rows
    assert {"numpy", "tensorflow"} <= saved["versions"].keys()
    assert (tmp_path / "new" / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("library", ["trainloop, XLA", "Keras fit, 100 per execution", "a tf.function per batch"])
@pytest.mark.thorough
def test_a_library_trains_an_epoch(library, float32):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(96, 28, 28, 1)).astype("float32"), rng.integers(0, 10, 96).astype("int32")
    parts = []
    original = libraries._keras_parts
    try:
        libraries._keras_parts = lambda hidden: parts.append(original(hidden)) or parts[-1]
        epoch = libraries.LIBRARIES[library]((4,), x, y)
        before = [v.numpy() for v in parts[0][0].trainable_variables]
        epoch()
    finally:
        libraries._keras_parts = original
    moved = [np.abs(v.numpy() - b).max() for v, b in zip(parts[0][0].trainable_variables, before, strict=True)]
    assert min(moved) > 1e-4


def test_layouts_are_what_their_names_say():
    sizes = {name: sum(int(np.prod(s)) for s in shapes) for name, shapes in flatten.LAYOUTS.items()}
    assert sizes["LeNet-5"] == 44_426
    assert len(flatten.LAYOUTS["ResNet shapes"]) == 128
    assert sizes["600 small variables"] == 600_000


def test_both_sides_of_flatten_step(float32):
    jobs, steps = flatten.jobs("LeNet-5")
    assert steps > 10
    for job in jobs.values():
        assert int(job()[0]) == steps


@pytest.mark.thorough
def test_jobs_of_least_squares_compute_what_they_say():
    values = {name: job() for name, job in least_squares.burgers_jobs(points=5, widths=(3,)).items()}
    assert len(values) == 4
    assert all(np.isfinite(value) for value in values.values())


def test_a_grid_of_the_square_has_every_point_once():
    square = equations.unit_square()
    assert square["pde"].shape == (784, 2)
    assert len(np.unique(np.concatenate([square["pde"], *square["sides"]]), axis=0)) == 900


@pytest.mark.thorough
def test_minimize_has_little_in_memory_besides_the_history():
    """It was 1.2 times the history of LBFGS; a second copy of anything as large makes it 2 and more."""
    measured = benchmarking.run_program("minimize", "trainloop", 2_000_000, "float64", 12)
    assert measured["iterations"] == 12
    assert measured["extra"] < 1.6 * measured["history"]


@pytest.mark.thorough
def test_jobs_of_curvature_compute_what_they_say():
    x, y = blobs(20)
    model, loss, data = dense_net(), crossentropy(), tl.ArrayData(x, y, 8, shuffle=False)
    jobs = curvature.jobs(model, loss, data)
    _, g = tl.ModelObjective(model, loss, (x, y)).value_and_grad(tl.VariableVector(model.trainable_variables).read())
    np.testing.assert_allclose(jobs.pop("gradient")(), g, atol=1e-13)
    assert {job().shape for job in jobs.values()} == {(53,), (53, 10)}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("save --rank 3 --repeats 1", "MB in"),
        ("matrix --n 1000", "extra memory"),
        ("deterministic --epochs 1 --repeats 1", "s without"),
    ],
)
def test_what_checkpoints_cost_is_measured(command, told, tmp_path):
    program = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "checkpoint", *command.split()]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
