"""Residuals on the command line: --residuals, --loss-weight, --dtype, points as data, and comparisons of them."""

import json
import runpy
import sys

import keras
import numpy as np
import pytest
from environment import ROOT, set_precision

from trainloop.loop import arguments

MINE = """
import keras
import numpy as np
import tensorflow as tf
import trainloop as tl

def points():
    return {"ode": tl.Box([0.0], [1.0], 20), "start": np.zeros([1, 1])}

def drawn():
    return tl.Points(points(), batch_size={"ode": 5}, seed=3)

def build(input_shape, outputs):
    assert (input_shape, outputs) == ((1,), 1)
    layers = [keras.layers.Dense(6, activation="tanh", name="a"), keras.layers.Dense(1, name="b")]
    return keras.Sequential([keras.Input(input_shape), *layers], name="u")

def ode(model, t):  # u' = -u, u(0) = 1
    u, du = tl.derivatives(model, t)
    return du[:, :, 0] + u

residuals = {"ode": ode, "start": lambda model, t: model(t) - 1}

def made():
    return residuals

def squares(model, batch):
    return {"ode": tf.reduce_mean(ode(model, batch["ode"]) ** 2), "start": (model(batch["start"])[0, 0] - 1) ** 2}

def errors(model, batch):
    return model(batch[0]) - batch[1]

def linear(input_shape, outputs):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(outputs)])
"""

OWN = ["--dataset", "mine.py:points", "--model", "mine.py:build", "--optimizer", "levenbergmarquardt"]
TERMS = [*OWN, "--residuals", "mine.py:residuals", "--dtype", "float64"]


@pytest.fixture
def here(tmp_path, monkeypatch, capfd, float32):
    """Runs a script in this process, in a folder with mine.py: (exit code, lines out, lines err)."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(script, *words):
        set_precision("float32")
        sys.modules.pop("mine", None)
        monkeypatch.setattr(sys, "argv", [str(ROOT / "scripts" / script), *words])
        code = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        printed = capfd.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


def steps(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["kind"] == "step"]


@pytest.mark.thorough
def test_an_equation_is_solved_resumed_and_repeated(tmp_path, here):
    words = [*TERMS, "--loss-weight", "start=4", "--run-dir", "a"]
    code, printed, complaints = here("train.py", *words, "--steps", "10")
    assert (code, complaints) == (0, [])
    assert "n = 19 parameters, 21 points" in printed[0]
    assert printed[-3].startswith("loss ")
    assert "term/start" in printed[-3]
    first = steps(tmp_path / "a" / "metrics.jsonl")
    assert first[3]["loss"] == pytest.approx(first[3]["term/ode"] + 4 * first[3]["term/start"], rel=1e-12)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["residuals"], config["loss_weights"], config["dtype"]) == (
        "mine.py:residuals",
        ["start=4"],
        "float64",
    )
    assert (config["epochs"], config["steps"], config["batch_size"], list(config["code"])) == (
        None,
        10,
        None,
        ["mine.py"],
    )

    code, printed, (line,) = here("train.py", "--run-dir", "a", "--resume", "--steps", "40")
    assert code == 0
    assert line.startswith("runs mine.py")
    assert "continues after step 10" in printed
    assert steps(tmp_path / "a" / "metrics.jsonl")[:10] == first

    code, printed, (line,) = here("train.py", "--config", "a/config.json", "--run-dir", "b")
    assert code == 0
    assert line.startswith("runs mine.py")
    assert printed[0] == "repeats a/config.json"
    assert steps(tmp_path / "b" / "metrics.jsonl") == steps(tmp_path / "a" / "metrics.jsonl")
    model = keras.models.load_model(tmp_path / "b" / "model.keras")
    assert model.dtype == "float64"
    t = np.linspace(0, 1, 11)[:, None]
    np.testing.assert_allclose(np.asarray(model(t)), np.exp(-t), atol=1e-4)

    code, _, complaints = here("train.py", "--run-dir", "a", "--resume", "--loss-weight", "start=2")
    assert code == 2
    assert "loss_weights was ['start=4'], here it is ['start=2']" in complaints[-1]


@pytest.mark.thorough
def test_what_a_function_returns_and_a_loss_of_terms(tmp_path, here):
    options = ["--steps", "3", "--dtype", "float64", "--seed", "1"]
    for folder, words in {
        "a": [*OWN, "--residuals", "mine.py:residuals"],
        "b": [*OWN, "--residuals", "mine.py:made"],
        "c": [*OWN[:-1], "simplegd", "--loss", "mine.py:squares"],
    }.items():
        assert here("train.py", *words, *options, "--run-dir", folder)[0] == 0
    a, b, c = (steps(tmp_path / folder / "metrics.jsonl") for folder in "abc")
    assert a == b
    assert c[0]["term/ode"] == pytest.approx(a[0]["term/ode"], rel=1e-12)
    here("train.py", *OWN, "--residuals", "mine.py:residuals", *options[:-1], "2", "--run-dir", "d")
    assert steps(tmp_path / "d" / "metrics.jsonl")[0]["loss"] != a[0]["loss"]  # other points and weights


def test_a_dry_run_tells_of_points(here):
    code, printed, _ = here("train.py", *TERMS[:1], "mine.py:drawn", *TERMS[2:], "--dry-run")
    assert code == 0
    assert "data: Points(ode: 5 of 20, start: 1)" in printed
    assert "steps: 1,000 of Points(ode: 5 of 20, start: 1)" in printed
    assert '  "residuals": "mine.py:residuals",' in printed


@pytest.mark.thorough
def test_samples_with_targets_have_residuals_too(tmp_path, here, caplog, monkeypatch):
    monkeypatch.setattr(arguments, "_told", set())
    words = ["--dataset", "diabetes", "--model", "mine.py:linear", "--residuals", "mine.py:errors"]
    options = ["--optimizer", "levenbergmarquardt", "--batch-size", "full", "--epochs", "8"]
    code, printed, _ = here("train.py", *words, *options, "--run-dir", "a")
    assert code == 0
    assert any(line.startswith("test loss ") for line in printed)
    told = [record.getMessage() for record in caplog.records if "in float32" in record.getMessage()]
    assert [line.split(" ")[0] for line in told] == ["LevenbergMarquardt"]
    here("train.py", *words, *options, "--dtype", "float64", "--run-dir", "b")
    assert sum("in float32" in record.getMessage() for record in caplog.records) == 1
    coarse, fine = (steps(tmp_path / folder / "metrics.jsonl")[-1]["loss"] for folder in "ab")
    assert fine == pytest.approx(coarse, rel=1e-3)
    x, y = fitted()
    least = np.mean((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2)
    assert fine == pytest.approx(least, rel=1e-6)


def fitted():
    from trainloop import load

    data = load("diabetes")
    return np.hstack([data.x_train, np.ones([len(data.x_train), 1])]).astype(float), data.y_train.astype(float)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*TERMS, "--epochs", "2"],
            "--epochs is for data with epochs, and points of residuals have none; give --steps",
        ),
        ([*TERMS, "--batch-size", "full"], "--batch-size is for data with epochs"),
        ([*TERMS, "--keep-best", "loss"], "--keep-best is for data with epochs"),
        ([*TERMS, "--loss", "mse"], "give a loss or residuals, received both"),
        ([*TERMS, "--loss-weight", "start"], "a loss weight must look like bc=4, once for each term, received 'start'"),
        ([*TERMS, "--loss-weight", "start=1", "--loss-weight", "start=2"], "once for each term"),
        ([*TERMS, "--loss-weight", "stat=1"], "no term is called (did you mean 'start'?)"),
        ([*OWN, "--residuals", "mine.py:residual"], "did you mean 'residuals'"),
        ([*OWN, "--residuals", "residuals"], "--residuals must be module:name or file.py:name"),
        ([*OWN, "--residuals", "mine.py:ode"], "mine.py:ode of mine.py:build on these points"),
        ([*OWN[:2], "--residuals", "mine.py:residuals"], "for points there is no usual model"),
        (OWN, "points have no targets; give --residuals"),
        ([*OWN, "--loss", "mse"], "points have no targets; give --residuals"),
        ([*TERMS, "--dtype", "float16"], "float16"),
    ],
)
def test_bad_input_is_one_line(words, said, here, tmp_path):
    code, _, (*_, line) = here("train.py", *words)
    assert code == 2
    assert said in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.thorough
def test_methods_are_compared_by_steps(tmp_path, here):
    common = [*TERMS[:4], *TERMS[6:], "--loss-weight", "start=4", "--steps", "8", "--seeds", "1", "--out", "c"]
    code, _, complaints = here("compare.py", "levenbergmarquardt", "bfgs", *common)
    assert (code, complaints) == (0, [])
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    for method, row in zip(("levenbergmarquardt", "bfgs"), summary["methods"], strict=True):
        run = tmp_path / "c" / "runs" / method / "seed-0"
        records = steps(run / "metrics.jsonl")
        assert row["means"]["final_loss"] == records[-1]["loss"]
        assert row["means"]["best_loss"] == min(record["loss"] for record in records)
        assert row["means"]["target_seconds"] <= row["means"]["seconds"]
        assert row["means"]["evaluations"] >= 8
        assert json.loads((run / "config.json").read_text())["dtype"] == "float64"
    assert (tmp_path / "c" / "by-epochs.png").exists()
    code, _, (*_, line) = here("compare.py", "bfgs", *common[:-6], "--epochs", "3")
    assert code == 2
    assert "points of residuals have no epochs; give --steps, and no --epochs" in line
    code, _, (*_, line) = here("compare.py", "bfgs:--residuals=mine.py:made", *common)
    assert "--residuals is common to all optimizers" in line
