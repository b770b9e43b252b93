"""From words to runs, from the files of runs to numbers, figures and a page."""

import dataclasses
import html
import io
import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from trainloop.comparison import (
    curves,
    decimals,
    end_labels,
    entrant,
    folder,
    layers,
    outcome,
    page,
    running,
    score,
    watching,
)

COMMON = ("--dataset=digits", "--model=mlp")


# --- Entrants -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "optimizer", "options", "settings"),
    [
        ("adam", "adam", (), ()),
        ("testgd:rad=2000,storage=dense", "testgd", ("rad=2000", "storage=dense"), ()),
        ("shorr:storage=factored:1000:restart", "shorr", ("storage=factored:1000:restart",), ()),
        ("lbfgs:m=20,--batch-size=full,--jit", "lbfgs", ("m=20",), ("--batch-size=full", "--jit")),
        ("lbfgs:--epochs=3", "lbfgs", (), ("--epochs=3",)),
        ("mine.py:Mine:betas=(0.9,0.99),k=1", "mine.py:Mine", ("betas=(0.9,0.99)", "k=1"), ()),
        ("sam:inner=adam,inner.learning_rate=0.1", "sam", ("inner=adam", "inner.learning_rate=0.1"), ()),
        ("package.methods:Mine", "package.methods:Mine", (), ()),
    ],
)
def test_an_entrant_is_a_word(label, optimizer, options, settings):
    assert entrant.parse(label) == entrant.Entrant(label, optimizer, options, settings)


def test_its_arguments_are_those_of_train():
    one = entrant.parse("lbfgs:m=20,--batch-size=full")
    common = ["--batch-size=64", "--seeds=3"]
    assert one.arguments(common) == ["--seeds=3", "--optimizer", "lbfgs", "-o", "m=20", "--batch-size=full"]


def test_phases_are_an_entrant_and_share_the_steps_of_a_run():
    one = entrant.parse("adam:learning_rate=0.01,--steps=30,--jit,--then=momentum:--steps=9,--then=lbfgs:m=5")
    assert one.settings == ("--steps=30", "--jit")
    assert one.then == ("momentum:--steps=9", "lbfgs:m=5")
    assert [(phase.optimizer, phase.steps) for phase in one.phases] == [("adam", 30), ("momentum", 9), ("lbfgs", None)]
    assert [phase.steps for phase in entrant.make_optimizer(one)] == [30, 9, None]
    own = ["--optimizer", "adam", "-o", "learning_rate=0.01", "--steps=30", "--jit", "--then", "momentum:--steps=9"]
    assert one.arguments(["--epochs=3"]) == ["--epochs=3", *own, "--then", "lbfgs:m=5"]
    assert one.arguments(["--steps=50"]) == [*own, "--then", "lbfgs:m=5,--steps=11"]
    with pytest.raises(ValueError, match="a run has 39 steps, and lbfgs would begin after 39"):
        one.arguments(["--steps=39"])
    assert entrant.parse("adam:--steps=3,--then=lbfgs:--steps=4").arguments(["--steps=50"])[-1] == "lbfgs:--steps=4"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "at least one optimizer"),
        (["adam", "testdg:rad=3"], r"testdg:rad=3: .*did you mean 'testgd'"),
        (["adam:learning_rat=0.1"], "did you mean 'learning_rate'"),
        (["adam", "adam"], "adam is given twice"),
        (["adam:--seed=3"], "--seed is common to all"),
        (["adam:--resume"], "--resume is common to all"),
        (["adam:--help"], "--help is common to all"),
        (["adam:--keep=5"], "--keep is common to all"),
        (["adam:--then=lbfgs"], "phase 0, adam, needs a number of steps"),
        (["adam:--steps=many,--then=lbfgs"], "--steps must be a positive integer, received 'many'"),
        (["adam:--steps=3,--then=lbgs"], "did you mean 'lbfgs'"),
        (["adam:--steps=3,--then=lbfgs:--jit"], "the only option of a phase is --steps=N"),
    ],
)
def test_what_is_wrong_with_an_entrant_is_said(labels, words):
    with pytest.raises(ValueError, match=words):
        entrant.parse_all(labels)


# --- The folder -----------------------------------------------------------------------------------------


def test_runs_alternate_between_methods_and_have_their_own_settings_last(tmp_path):
    comparison = folder.begin(tmp_path, [*COMMON, "--batch-size=64"], ["adam", "lbfgs:--batch-size=full"], range(2))
    assert [run.name for run in comparison.runs] == [
        "adam, seed 0",
        "lbfgs:--batch-size=full, seed 0",
        "adam, seed 1",
        "lbfgs:--batch-size=full, seed 1",
    ]
    words = comparison.arguments(comparison.runs[1])
    assert "--batch-size=64" not in words
    assert "--batch-size=full" in words
    assert words[-3:] == ["--seed=0", f"--run-dir={comparison.runs[1].folder}", "--resume"]
    assert "--batch-size=64" in comparison.arguments(comparison.runs[0])


def test_epochs_are_those_of_all_or_its_own(tmp_path):
    comparison = folder.begin(tmp_path, ["--epochs=4"], ["adam", "lbfgs:--epochs=90"], range(1))
    assert [comparison.epochs(run) for run in comparison.runs] == [4, 90]


def test_methods_and_seeds_can_join_later_and_other_settings_cannot(tmp_path):
    folder.begin(tmp_path, COMMON, ["adam"], range(1))
    folder.begin(tmp_path, COMMON, ["momentum", "adam"], range(2))
    comparison = folder.read(tmp_path)
    assert [one.label for one in comparison.entrants] == ["adam", "momentum"]
    assert comparison.seeds == (0, 1)
    with pytest.raises(ValueError, match=r"other settings: --dataset=digits --model=mlp; here they are --model=mlp"):
        folder.begin(tmp_path, ["--model=mlp"], ["adam"], range(1))


def test_a_comparison_is_read_also_where_a_method_has_gone_since(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone.py").write_text("from trainloop import Adam")
    folder.begin(tmp_path / "c", COMMON, ["gone.py:Adam"], range(1))
    (tmp_path / "gone.py").unlink()
    assert folder.read(tmp_path / "c").entrants[0].label == "gone.py:Adam"
    with pytest.raises(ValueError, match="there is no such file"):
        folder.begin(tmp_path / "c", COMMON, ["adam"], range(1))


def test_a_folder_is_for_one_process(tmp_path):
    with folder.lock(tmp_path / "new" / "c"), pytest.raises(ValueError, match="in use by a run of another process"):
        folder.lock(tmp_path / "new" / "c")
    with folder.lock(tmp_path / "new" / "c"):
        pass


def test_a_folder_without_a_comparison_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"no comparison\.json"):
        folder.read(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        folder.read(tmp_path)


# --- Running, with a program that takes no time ---------------------------------------------------------

PROGRAM = """
import json, pathlib, sys, time
given = dict(word.partition("=")[::2] for word in sys.argv if word.startswith("--"))
run = pathlib.Path(given["--run-dir"])
run.mkdir(parents=True, exist_ok=True)
with open(run / "metrics.jsonl", "a") as file:
    file.write(json.dumps({"kind": "step", "step": 1, "epoch": 1, "loss": 0.5}) + "\\n")
if given["--seed"] == "1":
    sys.exit("Error: this seed fails")
if given["--seed"] == "2":
    import signal
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    (run / "ready").write_text("")
    while not stopped:
        time.sleep(0.01)
    sys.exit(143)
"""


class Told(running.Watcher):
    def __init__(self):
        self.ends, self.looks = [], 0

    def look(self, run):
        self.looks += 1

    def end(self, run, code, reason):
        self.ends.append((run.seed, code, reason))


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_one_run_that_fails_leaves_the_others_alone(tmp_path, program):
    comparison, told = folder.begin(tmp_path / "c", COMMON, ["adam"], range(2)), Told()
    for run in comparison.runs:
        (run.folder / "checkpoints" / "step-00000001").mkdir(parents=True)
    running.Runner([sys.executable, program], comparison, 2, told).run(comparison.runs)
    assert [(run.folder / "checkpoints").exists() for run in comparison.runs] == [False, True]  # it may go on
    assert sorted(told.ends) == [(0, 0, ""), (1, 1, "this seed fails")]
    assert json.loads(comparison.runs[1].exit.read_text()) == {"code": 1, "reason": "this seed fails"}
    assert comparison.runs[1].output.read_text().strip() == "Error: this seed fails"
    assert running.newest(comparison.runs[0])["loss"] == 0.5


def test_told_to_stop_it_passes_that_on_and_begins_nothing_more(tmp_path, program):
    comparison, told = folder.begin(tmp_path / "c", COMMON, ["adam", "momentum"], [2]), Told()
    runner = running.Runner([sys.executable, program], comparison, 1, told)

    def stop_when_ready():
        while not (comparison.runs[0].folder / "ready").exists():
            time.sleep(0.01)
        runner.stop("enough")

    thread = threading.Thread(target=stop_when_ready)
    thread.start()
    runner.run(comparison.runs)
    thread.join()
    assert [end[:2] for end in told.ends] == [(2, 143)]
    assert not comparison.runs[1].folder.exists()


def test_a_process_that_was_killed_has_a_reason(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    comparison, told = folder.begin(tmp_path / "c", COMMON, ["adam"], range(1)), Told()
    running.Runner([sys.executable, program], comparison, 1, told).run(comparison.runs)
    assert told.ends == [(0, -9, "ended by SIGKILL; the system ends processes so when memory is short")]


# --- Numbers ----------------------------------------------------------------------------------------------


def write_run(run, losses, accuracy=0.9, code=0, reason="", samples=(64, 36), evaluations=None, finished=True):
    """The files of a run with two steps per epoch, whose first has the loss of the epoch plus 1."""
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps({"training_samples": 100, "seed": run.seed}))
    records, step = [], 0
    for epoch, loss in enumerate(losses, 1):
        for count in samples:
            step += 1
            record = {
                "kind": "step",
                "step": step,
                "epoch": epoch,
                "samples": count,
                "loss": loss and loss + 1,
                "grad_norm": 1.0,
            }
            record |= {"norm/g/dense/kernel": 0.5 / step, "norm/g/dense/bias": None if step == 1 else 0.1}
            if evaluations:
                record |= {"evaluations/f": evaluations * step, "evaluations/Gv": step}
            records.append(record)
        epoch_record = {"kind": "epoch", "epoch": epoch, "step": step, "seconds": 2.0 * epoch, "loss": loss}
        records.append(epoch_record | {"val_loss": loss and loss + 0.1, "val_accuracy": accuracy - 0.1 / epoch})
    if finished:
        end = {"kind": "end", "step": step, "status": "FINISHED", "message": "done", "seconds": 2.0 * len(losses) + 1}
        records.append(end | {"peak_memory": 500_000_000})
        records.append({"kind": "test", "loss": losses[-1], "accuracy": accuracy})
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    if code is not None:
        run.exit.write_text(json.dumps({"code": code, "reason": reason}))


@pytest.fixture
def finished(tmp_path):
    """Two methods, two seeds each, all complete."""
    comparison = folder.begin(tmp_path, COMMON, ["adam", "lbfgs:m=3"], range(2))
    for run in comparison.runs:
        if run.entrant.label == "adam":
            write_run(run, [1.0, 0.5, 0.25 + 0.1 * run.seed])
        else:
            write_run(run, [0.8, 0.4], accuracy=0.95, evaluations=3)
    return comparison


def outcomes_of(comparison):
    return [outcome.read(run) for run in comparison.runs]


def test_work_is_counted_in_evaluations_and_in_passes_over_the_data(finished):
    adam, lbfgs, *_ = outcomes_of(finished)
    np.testing.assert_array_equal(adam.evaluations, [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(adam.at_epochs(adam.passes), [1, 2, 3])
    # Three of f and one product in each step.
    np.testing.assert_array_equal(lbfgs.evaluations, [4, 8, 12, 16])
    np.testing.assert_allclose(lbfgs.passes, [2.56, 4, 6.56, 8])


def test_a_row_has_means_and_spreads_over_seeds(finished):
    first, second = score.rows(outcomes_of(finished), score.Target("loss", 0.5))
    assert (first["method"], first["runs"], first["complete"], first["failed"], first["reached"]) == (
        "adam",
        2,
        2,
        0,
        2,
    )
    assert first["means"]["final_loss"] == pytest.approx((0.25 + 0.35) / 2)
    assert first["spreads"]["final_loss"] == pytest.approx(0.1 / math.sqrt(2))
    assert first["means"]["target_seconds"] == 4.0
    assert first["means"]["target_passes"] == pytest.approx(2)
    assert first["means"]["peak_memory"] == 5e8
    assert second["means"]["target_passes"] == pytest.approx(8)
    assert second["means"]["test_accuracy"] == 0.95
    assert second["means"]["evaluations"] == 16


def test_the_common_target_is_reached_by_everybody(finished):
    target = score.common_target(outcomes_of(finished))
    assert target == score.Target("loss", 0.4)
    assert all(row["reached"] == 2 for row in score.rows(outcomes_of(finished), target))


@pytest.mark.parametrize(
    ("text", "name", "value", "first"),
    [
        ("loss=0.5", "loss", 0.5, 1),
        ("val_accuracy=0.85", "val_accuracy", 0.85, 1),
        ("val_accuracy=0.99", None, None, None),
    ],
)
def test_a_target_knows_which_way_is_better(text, name, value, first, finished):
    target = score.parse_target(text)
    if name:
        assert (target.name, target.value) == (name, value)
    assert target.reached(outcomes_of(finished)[0].log.epochs) == first


@pytest.mark.parametrize("text", ["loss", "loss=small", "=3", "val_something=1"])
def test_a_target_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match=f"a target looks like .* received '{text}'"):
        score.parse_target(text)


@pytest.mark.parametrize(
    ("mean", "spread", "words"),
    [
        (0.3961, 0.0051, "0.396 ± 0.005"),
        (0.86123, 0.0234, "0.86 ± 0.02"),
        (2.08e30, 3.6e28, "2.08e+30 ± 4e+28"),
        (123456.0, 0.0, "123,456"),
        (3.0, 0.0, "3"),
        (1205.971, 0.003, "1,206.0 ± 0.003"),
        (906.2, 0.97, "906 ± 1"),
        (1234.5, 12.0, "1,234 ± 10"),
    ],
)
def test_numbers_have_as_many_digits_as_their_spread_says(mean, spread, words):
    row = {"means": {"x": mean}, "spreads": {"x": spread} if spread else {}, "reached": 1, "complete": 1}
    assert score.cells([row], "x") == [words]


@pytest.mark.parametrize(
    ("means", "spreads", "words"),
    [
        ((0.333, 1.94), (0.002, 0.01), ["0.333 ± 0.002", "1.940 ± 0.010"]),
        ((0.95, 0.8583), (0, 0), ["0.9500", "0.8583"]),
        ((0.17299, 0.08741), (0, 0), ["0.1730", "0.0874"]),
        ((69, 7, 1205), (0, 0, 0), ["69", "7", "1,205"]),
        ((500.0, 0.0123), (0, 0), ["500.000", "0.012"]),
        ((0.3, None, 2e-5), (0.01, 0, 0), ["3.00e-01 ± 1e-02", "", "2.00e-05"]),
        ((1.0, 2e5), (0, 0), ["1.00e+00", "2.00e+05"]),
        ((0.0, 0.5), (0, 0), ["0.0", "0.5"]),
        ((-3.25, 12.0), (0, 2.0), ["-3.25", "12.00 ± 2.00"]),
        ((None,), (0,), [""]),
    ],
)
def test_a_column_has_equal_decimal_places(means, spreads, words):
    assert decimals.texts(means, spreads) == words


def test_compilation_is_what_first_epochs_take_longer(tmp_path):
    one = folder.Run(entrant.Entrant("adam", "adam"), 0, tmp_path / "one")
    write_run(one, [1.0, 0.5, 0.25, 0.2, 0.15])
    read = outcome.read(one)
    epochs = {**read.log.epochs, "seconds": np.array([7.0, 8.0, 9.5, 14.5, 15.0])}
    timed = dataclasses.replace(read, log=dataclasses.replace(read.log, epochs=epochs))
    np.testing.assert_allclose(timed.compilation, [7.0 - 1.25, 0, 0, 0, 0])
    np.testing.assert_allclose(timed.training_seconds, [1.25, 2.25, 3.75, 8.75, 9.25])
    history = {**read.log.history, "phase": np.repeat([0, 1], (6, 4))}
    phases = dataclasses.replace(read, log=dataclasses.replace(read.log, epochs=epochs, history=history))
    np.testing.assert_allclose(phases.compilation, [7.0 - 1.25, 0, 0, 5.0 - 0.5, 0])


def test_compilation_of_a_single_epoch_is_not_known(tmp_path):
    one = folder.Run(entrant.Entrant("adam", "adam"), 0, tmp_path / "one")
    write_run(one, [1.0])
    assert np.isnan(outcome.read(one).compilation).tolist() == [True]
    found = score.numbers(outcome.read(one), score.Target("loss", 2.0))
    assert "compilation" not in found
    assert (found["seconds"], found["training_seconds"], found["target_seconds"]) == (3.0, 3.0, 2.0)


def test_a_failed_and_an_unfinished_run_do_not_enter_the_means(finished):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3"], range(4))
    _, _, _, _, adam2, lbfgs2, adam3, _ = more.runs
    write_run(adam2, [9.0], code=1, reason="step 3 failed", finished=False)
    write_run(lbfgs2, [9.0], code=None, finished=False)
    write_run(adam3, [9.0], code=143, finished=False)
    states = [one.state for one in outcomes_of(more)]
    assert states == ["complete"] * 4 + ["failed", "unfinished", "unfinished", "not begun"]
    row = score.rows(outcomes_of(more), None)[0]
    assert (row["runs"], row["complete"], row["failed"]) == (4, 2, 1)
    assert row["means"]["final_loss"] == pytest.approx(0.3)


def test_a_target_that_not_all_reach_says_how_many(finished):
    row = score.rows(outcomes_of(finished), score.Target("loss", 0.3))[0]
    assert score.cells([row], "target_seconds") == ["1 of 2: 6"]


# --- Figures and pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", curves.AXES)
def test_curves_are_the_means_of_the_runs(axis, finished):
    figure = curves.draw(outcomes_of(finished), axis)
    loss, *_ = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "training loss (log)",
        "test loss (log)",
        "1 - test accuracy (log)",
    ]
    assert figure.axes[-1].get_xlabel() in (
        "epoch",
        "training time without compilation [s]",
        "evaluations [passes over the training set]",
    )
    thick = [line for line in loss.lines if line.get_linewidth() == 2]
    np.testing.assert_allclose(thick[0].get_ydata(), [1.0, 0.5, 0.3])
    np.testing.assert_allclose(
        thick[0].get_xdata(), {"epochs": [1, 2, 3], "seconds": [2, 4, 6], "passes": [1, 2, 3]}[axis]
    )
    assert thick[0].get_color() != thick[1].get_color()


def test_runs_of_very_different_length_share_a_logarithmic_axis(finished):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3", "momentum"], range(2))
    assert curves.draw(outcomes_of(more), "seconds").axes[-1].get_xscale() == "linear"
    write_run(more.runs[2], np.linspace(1, 0.1, 30).tolist())
    assert curves.draw(outcomes_of(more), "seconds").axes[-1].get_xscale() == "log"
    assert curves.draw(outcomes_of(more), "epochs").axes[-1].get_xscale() == "linear"


def test_a_run_that_diverged_does_not_hide_the_others(finished):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3", "momentum"], range(2))
    write_run(more.runs[2], [1e3, 1e30])
    axes = curves.draw(outcomes_of(more), "epochs").axes[0]
    assert axes.get_ylim()[1] == pytest.approx(10 * np.median([1.0, 1.0, 0.8, 0.8, 1e3]))
    assert axes.get_ylim()[0] < 0.25


@pytest.mark.thorough
def test_losses_that_are_no_numbers_spoil_neither_figures_nor_numbers(finished):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3", "momentum", "simplegd"], range(2))
    write_run(more.runs[2], [None, 0.5])
    write_run(more.runs[3], [None, None])
    axes = curves.draw(outcomes_of(more), "epochs").axes[0]
    assert axes.get_ylim()[0] < 0.25
    *_, momentum, simplegd = score.rows(outcomes_of(more), None)
    assert (momentum["means"]["best_loss"], "best_loss" in simplegd["means"]) == (0.5, False)
    assert score.common_target(outcomes_of(more)) == score.Target("loss", 0.5)
    report(more)
    assert "NaN" not in (more.path / "summary.json").read_text()


def test_negative_losses_have_a_linear_axis(finished, recwarn):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3", "momentum"], range(2))
    write_run(more.runs[2], [0.5, -3.0])
    axes = curves.draw(outcomes_of(more), "epochs").axes[0]
    assert (axes.get_yscale(), axes.get_ylim()[0] < -3) == ("linear", True)
    assert not recwarn.list


def test_labels_of_figures_are_what_the_user_wrote(tmp_path):
    one = folder.Run(entrant.Entrant("_$x_$ {$.py:Mine", "adam"), 0, tmp_path / "one")
    write_run(one, [1.0, 0.5])
    figure = curves.draw([outcome.read(one)], "epochs")
    assert not figure.legends
    height = figure.get_size_inches()[1]
    assert [text.get_text() for text in curves.add_legend(figure).legends[0].get_texts()] == [r" _\$x_\$ {\$.py:Mine"]
    assert figure.get_size_inches()[1] > height
    assert figure.png()
    assert layers.draw(outcome.read(one)).png()


def test_a_method_has_the_same_colour_in_legend_and_figures(tmp_path):
    """Also where the one before it has failed in its first epoch."""
    comparison = folder.begin(tmp_path, COMMON, ["adam", "lbfgs:m=3"], range(1))
    write_run(comparison.runs[0], [], code=1, reason="failed at once", finished=False)
    write_run(comparison.runs[1], [1.0, 0.5])
    figure = curves.draw(outcomes_of(comparison), "epochs")
    assert [line.get_color() for line in figure.axes[0].lines] == [curves.keys(2)[1]["color"]]


def ends_of(figure):
    """The texts of every panel, and where they stand in parts of its width."""
    return [
        {
            text.get_text(): axes.transAxes.inverted().transform(axes.transData.transform(text.xy))[0]
            for text in axes.texts
        }
        for axes in figure.axes
    ]


def test_methods_are_named_where_their_lines_end(finished):
    loss, *_ = ends_of(curves.draw(outcomes_of(finished), "passes"))
    assert loss.keys() == {"adam", "lbfgs"}
    assert max(loss.values()) < 0.85  # so that the text has room


def test_methods_are_not_named_where_that_does_not_fit(finished):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3", "momentum"], range(2))
    for run in more.runs[2], more.runs[5]:
        write_run(run, [1.0, 0.5, 0.3])  # ends where adam does
    assert ends_of(curves.draw(outcomes_of(more), "epochs"))[0] == {}
    for others in (["adam", "adam:learning_rate=1"], ["adam", "a_name_that_is_long.py:AndAnotherThatIsLong"]):
        assert end_labels.short_names([entrant.Entrant(word, word.partition(":l")[0]) for word in others]) == {}


@pytest.mark.parametrize(
    ("label", "short"),
    [("adam", "adam"), ("lbfgs:m=3,--jit", "lbfgs"), ("adam:--steps=3,--then=lbfgs:m=3", "adam+lbfgs")],
)
def test_a_short_name_is_that_of_the_optimizer(label, short):
    assert end_labels.short_names([entrant.parse(label)]) == {label: short}


def test_gradient_norms_layer_by_layer(finished):
    figure = layers.draw(outcomes_of(finished)[0])
    values = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(values[0], np.log10(0.5 / np.arange(1, 7)))
    np.testing.assert_allclose(values[1], [np.nan, *[-1] * 5])
    np.testing.assert_allclose(layers.limits(outcomes_of(finished)), np.log10([0.5 / 6, 0.5]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dense/kernel", "dense/bias"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[1].xaxis.label.get_window_extent(canvas.get_renderer())  # of the colour bar
    assert (box.x0 > 0, box.y0 > 0, box.x1 < figure.bbox.x1) == (True, True, True)


def test_long_runs_are_drawn_as_means_of_stretches(finished):
    rows = np.arange(1000.0)[None]
    binned = layers._binned(rows, most=100)
    np.testing.assert_allclose(binned[0], rows.reshape(100, 10).mean(1))


def report(comparison, target=None):
    return page.write(comparison, outcomes_of(comparison), target).read_text()


def cells(text, table):
    """The cells of a table of a page, as rows of words."""
    body = re.search(rf'<table id="{table}"[^>]*>(.*?)</table>', text, re.S)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [
        [
            html.unescape(re.sub(r"<[^>]*>", "", cell)).strip()
            for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.S)
        ]
        for row in rows
    ]


@pytest.mark.thorough
def test_a_report_has_the_numbers_of_the_logs(finished):
    text = report(finished)
    headings, adam, lbfgs = cells(text, "results")
    assert adam[0] == "adam"
    assert adam[headings.index("best training loss")] == "0.30 ± 0.07"
    assert lbfgs[headings.index("test accuracy")] == "0.95"
    assert headings[-1] == "s to target"
    assert (adam[-1], lbfgs[-1]) == ("6", "4")
    assert not {"peak MB", "evaluations"} & set(headings)
    _, *runs = cells(text, "runs")
    assert [row[:2] for row in runs] == [[run.name, "complete"] for run in finished.runs]
    every, first, *_ = cells(text, "runs")
    assert (every[-1], first[every.index("final training loss")], first[every.index("peak MB")]) == (
        "s to target",
        "0.25",
        "500",
    )
    (legend,) = re.findall(r'<ul class="legend">(.*?)</ul>', text, re.S)
    assert re.findall(r"</svg>(.*?)</li>", legend) == ["adam", "lbfgs:m=3"]
    assert "not finished" not in text
    assert "The target is loss 0.4: the smallest" in text
    saved = json.loads((finished.path / "summary.json").read_text())
    assert saved["methods"][0]["means"]["final_loss"] == pytest.approx(0.3)
    assert text.count("data:image/png;base64,") == 3 + 2


@pytest.mark.thorough
def test_a_report_needs_no_other_file(finished):
    text = report(finished)
    assert not re.findall(r'(?:src|href)="(?!data:|runs/)', text)
    assert "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.thorough
def test_an_unfinished_comparison_and_a_failure_are_said(finished):
    more = folder.begin(finished.path, COMMON, ["adam", "lbfgs:m=3"], range(3))
    write_run(more.runs[4], [9.0], code=1, reason="step 3 <failed>", finished=False)
    text = report(more)
    assert "This comparison is not finished" in text
    assert "lbfgs:m=3, seed 2: not begun." in text
    assert "adam, seed 2 failed:</strong> step 3 &lt;failed&gt;" in text
    assert cells(text, "results")[1][0].split() == ["adam", "(2", "of", "3", "runs)"]


def test_a_report_before_the_first_run(tmp_path):
    text = report(folder.begin(tmp_path, COMMON, ["adam"], range(1)))
    assert "No run has finished an epoch yet." in text


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# The page in a frame of some width: does every image show, do the page and all its tables stay within the width?
IN_A_FRAME = """<!DOCTYPE html><iframe style="width: {width}px; height: 2000px; border: 0" srcdoc="{page}"></iframe>
<p id="found"></p><script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  const images = [...page.images].map(image => image.complete && image.naturalWidth > 100);
  const table = page.querySelector("#results").getBoundingClientRect();
  const hidden = [...page.querySelectorAll(".scroll")].map(part => part.scrollWidth - part.clientWidth);
  document.querySelector("#found").textContent =
    JSON.stringify({{images, scroll: page.documentElement.scrollWidth, hidden, table: table.height}});
}});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: Debian's chromium")
@pytest.mark.thorough
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_all_of_it_without_a_network(width, finished, tmp_path):
    framed = tmp_path / "framed.html"
    framed.write_text(IN_A_FRAME.format(page=html.escape(report(finished)), width=width))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([BROWSER, *options, framed.as_uri()], capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<p id="found">(.*?)</p>', done.stdout)[1]))
    assert found["images"] == [True] * 5
    assert found["scroll"] <= width
    assert found["hidden"] == [0, 0]
    assert found["table"] > 50


# --- What a person sees ------------------------------------------------------------------------------------


def test_the_table_on_a_terminal_fits_its_width(finished, capsys):
    console = Console(width=62)
    watching.print_table(console, score.rows(outcomes_of(finished), None))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 62
    assert re.search(r"final training loss\s*│\s*0.30 ± 0.07 │\s*0.40 │", printed)


@pytest.mark.parametrize("width", [20, 40])
def test_a_narrow_terminal_shows_the_numbers_too(width, finished, capsys):
    watching.print_table(Console(width=width), score.rows(outcomes_of(finished), None))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "500" in printed  # MB


def test_a_method_is_called_what_the_user_called_it(finished, capsys):
    rows = score.rows(outcomes_of(finished), None)
    rows[0]["method"] = "m:w=[bold]x"
    watching.print_table(Console(width=62), rows)
    assert "m:w=[bold]x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("adam", ["adam"]),
        ("testgd:rad=3000", ["testgd:rad=3000"]),
        ("adam:learning_rate=0.003", ["adam:", "learning_rate=", "0.003"]),
        ("lbfgs:m=20,--batch-size=full", ["lbfgs:m=20,", "--batch-size=", "full"]),
        ("a_name_that_is_long.py:Mine", ["a_name_that_is_long.py:", "Mine"]),
    ],
)
def test_methods_are_broken_where_they_can_be_read(method, lines):
    assert watching.in_lines(method).split("\n") == lines


def test_a_live_view_has_a_line_for_all_and_one_for_each_that_goes_on(finished):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=90, _environ={})
    with watching.LiveWatcher(console, total=4, done=1, epochs=lambda run: 4) as watcher:
        for run in finished.runs[:2]:
            watcher.begin(run)
            watcher.look(run)
        watcher.end(finished.runs[0], 0, "")
        watcher.end(finished.runs[1], 1, "[out] of luck")
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())
    assert "adam, seed 0: complete  test loss 0.25  test accuracy 0.9" in seen
    assert "lbfgs:m=3, seed 0: failed: [out] of luck" in seen
    assert re.search(r"runs .* 3 of 4", seen)
    assert re.search(r"lbfgs:m=3, seed 0 .*test accuracy 0.9", seen)


def test_plain_lines_name_the_run_and_how_it_ended(finished):
    said = []
    watcher = watching.PlainWatcher(said.append, total=4, done=1)
    watcher.begin(finished.runs[0])
    watcher.end(finished.runs[0], 0, "")
    watcher.end(finished.runs[1], 1, "out of luck")
    assert said[0] == "[2/4] adam, seed 0"
    assert said[1] == "  adam, seed 0: complete  test loss 0.25  test accuracy 0.9"
    assert said[2] == "  lbfgs:m=3, seed 0: failed: out of luck"
