"""compare.py as a user meets it."""

import json
import runpy
import sys

import pytest
from environment import ROOT

from trainloop.comparison import collection, folder
from trainloop.hooks.metrics_file import read_run_log

DIVERGES = """
import trainloop as tl

class Diverges(tl.SimpleGD):
    def update(self, x, g, state):
        return x / 0, state
"""


@pytest.fixture
def compare(tmp_path, monkeypatch, capfd, float32):
    """Runs compare.py in this process: (exit code, lines out, lines err)."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(ROOT / "scripts"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setattr(sys, "argv", [str(ROOT / "scripts" / "compare.py"), *arguments])
        code = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        printed = capfd.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


@pytest.mark.thorough
def test_from_one_command_to_a_report_and_on(tmp_path, compare):
    """A method joins later, and fails; what is complete is not done again."""
    (tmp_path / "mine.py").write_text(DIVERGES)
    options = ["--model", "softmax_regression", "--epochs", "2", "--out", "c", "--seeds", "1"]
    code, out, err = compare("adam:learning_rate=0.01", *options, "--target", "val_accuracy=0.5")
    assert (code, err) == (0, [])
    assert out[:2] == ["1 runs in c", "[1/1] adam:learning_rate=0.01, seed 0"]
    assert out[2].startswith("  adam:learning_rate=0.01, seed 0: complete  test loss")
    assert out[-1] == "report: c/report.html"

    run = tmp_path / "c" / "runs" / "adam_learning_rate=0.01" / "seed-0"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    means = summary["methods"][0]["means"]
    assert summary["target"] == {"val_accuracy": 0.5}
    assert means["final_loss"] == epochs[-1]["loss"]
    assert means["seconds"] == next(r for r in records if r["kind"] == "end")["seconds"]
    assert means["test_accuracy"] == records[-1]["accuracy"]
    assert means["evaluations"] == 46
    reached = means["target_seconds"] + means["compilation"]  # which is left out
    assert min(abs(reached - r["seconds"]) for r in epochs) < 1e-9

    assert not (run / "checkpoints").exists()
    assert "target: val_accuracy 0.5" in compare("report", "c")[1]
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    code, out, err = compare("mine.py:Diverges", *options)
    assert (code, err) == (1, [])
    assert out[:2] == ["2 runs in c, 1 complete", "[2/2] mine.py:Diverges, seed 0"]
    assert any(line.startswith("mine.py:Diverges, seed 0 failed: step 1 failed (nonfinite_step)") for line in out)
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    assert any(line.startswith("target: loss ") for line in out)  # this time none was asked for
    assert "mine.py:Diverges, seed 0 failed" in (tmp_path / "c" / "report.html").read_text()


@pytest.mark.thorough
def test_phases_are_compared_under_their_label(tmp_path, compare, monkeypatch):
    phases = "adam:--steps=3,--then=lbfgs:m=5"
    words = ["--dataset", "wine", "--model", "softmax_regression", "--batch-size", "full", "--steps", "8"]
    code, out, err = compare(phases, "adam", *words, "--seeds", "1", "--out", "c")
    assert (code, err) == (0, [])
    assert out[1] == f"[1/2] {phases}, seed 0"
    methods = json.loads((tmp_path / "c" / "summary.json").read_text())["methods"]
    assert [row["method"] for row in methods] == [phases, "adam"]
    log = read_run_log(tmp_path / "c" / "runs" / "adam_--steps=3_--then=lbfgs_m=5" / "seed-0" / "metrics.jsonl")
    assert log.history["phase"].tolist() == [0] * 3 + [1] * 5
    assert phases in (tmp_path / "c" / "report.html").read_text()

    monkeypatch.setitem(collection.KINDS, "all", lambda problem: problem.name == "beale")
    code, out, err = compare("problems", phases, "--out", "p")
    assert (code, err) == (0, [])
    assert out[1] == f"{phases}: solved 1 at 0.001, 1 at 1e-06 of 1"


@pytest.mark.thorough
def test_methods_over_problems_go_on_where_they_were(tmp_path, compare, monkeypatch):
    monkeypatch.setitem(collection.KINDS, "all", lambda problem: problem.name in ("beale", "shor"))
    code, out, err = compare("problems", "lbfgs", "--out", "p")
    assert (code, err) == (0, [])
    assert out == [
        "[1/2] lbfgs on beale",
        "[2/2] lbfgs on shor",
        "lbfgs: solved 2 at 0.001, 1 at 1e-06 of 2; not solved: 1 stalled",
        "report: p/report.html",
    ]
    code, out, _ = compare("problems", "lbfgs", "momentum:learning_rate=1e9", "--out", "p")
    assert code == 0
    assert out[:2] == ["[1/2] momentum:learning_rate=1e9 on beale", "[2/2] momentum:learning_rate=1e9 on shor"]
    assert "solved 0 at 0.001, 0 at 1e-06 of 2" in out[3]


def test_what_somebody_else_uses_or_has_damaged_is_one_line(tmp_path, compare):
    begun = folder.begin(tmp_path / "c", ["--dataset=digits", "--model=mlp"], ["adam"], range(1))
    begun.runs[0].folder.mkdir(parents=True)
    begun.runs[0].metrics.write_text("{\n")
    code, _, (*_, line) = compare("report", "c")
    assert (code, line.endswith("is damaged in line 1; put it back, or do the run again")) == (1, True)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "problems.json").write_text("{}")
    code, _, (line,) = compare("problems", "lbfgs", "--out", "p")
    assert (code, "problems.json is damaged" in line) == (2, True)
    before = (tmp_path / "c" / "comparison.json").read_text()
    with folder.lock(tmp_path / "c"):
        code, _, (line,) = compare("momentum", "--out", "c")
    assert (code, "in use by a run of another process" in line) == (2, True)
    assert (tmp_path / "c" / "comparison.json").read_text() == before


def test_a_target_that_no_run_has_is_said(tmp_path, compare):
    begun = folder.begin(tmp_path / "c", ["--dataset=digits", "--model=mlp"], ["adam"], range(1))
    begun.runs[0].folder.mkdir(parents=True)
    step = {"kind": "step", "step": 1, "epoch": 1, "samples": 64, "loss": 0.5}
    epoch = {"kind": "epoch", "epoch": 1, "step": 1, "seconds": 1.0, "loss": 0.5}
    begun.runs[0].metrics.write_text(f"{json.dumps(step)}\n{json.dumps(epoch)}\n")
    code, _, err = compare("report", "c", "--target", "val_accuracy=0.5")
    assert code == 0
    assert "no run has the target 'val_accuracy'; their epochs have epoch, loss, seconds, step" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("adam testdg", "testdg: unknown optimizer 'testdg' (did you mean 'testgd'?)"),
        ("adam adam", "adam is given twice"),
        ("adam:learning_rat=1", "did you mean 'learning_rate'"),
        ("adam:--batch-size=none", "adam:--batch-size=none: Invalid value for '--batch-size'"),
        ("adam:--bach-size=3", "No such option '--bach-size'"),
        ("adam --model lenet", "did you mean 'lenet5'"),
        ("adam --dataset wine --model lenet5", "lenet5"),
        ("adam:--steps=3,--then=lbfgs --steps 3", "a run has 3 steps, and lbfgs would begin after 3"),
        ("problems adam:--steps=3,--jit,--then=lbfgs", "--jit is an option of trainloop train"),
        ("adam --target fast", "a target looks like val_accuracy=0.95"),
        ("adam --seeds 0", "seeds"),
        ("adam --out file", "file is a file"),
        ("--seeds 3", "METHOD"),
        ("report nowhere", "no comparison.json"),
        ("problems adam:--jit", "--jit is an option of trainloop train"),
        ("problems adam --tolerance 2", "tolerance"),
        ("problem lbfgs", "did you mean 'problems'"),
        ("problems testdg", "did you mean 'testgd'"),
    ],
)
def test_bad_input_is_one_line_before_any_run(arguments, words, tmp_path, compare):
    (tmp_path / "file").write_text("")
    code, _, (line,) = compare(*arguments.split())
    assert code == 2
    assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
