"""The two displays as hooks, on a terminal that is a file."""

import io
import re
import sys

import numpy as np
import pytest
from rich.console import Console

from trainloop.hooks.base import Progress
from trainloop.hooks.display import LiveDisplay, PlainLines, Speed

LOGS = {"step": [46], "epoch": [2], "samples": [64], "loss": [0.5], "radius": [3.0], "status": [0], "grad_norm": [2.0]}
OF_LAYERS = {"norm/dense/kernel": [8.0], "angle/dense/kernel": [9.0]}
SUMMARY = {"epoch": 2, "step": 46, "seconds": 3.21, "loss": 0.5, "accuracy": 0.9, "val_[loss]": 0.75}


def progress(step=46, seconds=3.0, **logs):
    arrays = {name: np.array(values) for name, values in (LOGS | logs).items()}
    where = {"step": step, "epoch": 2, "epoch_step": 23, "steps_per_epoch": 23, "run_step": step, "run_steps": 92}
    return Progress(**where, seconds=seconds, logs=arrays, metrics={"accuracy": 0.9})


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm-256color"})


@pytest.fixture
def now():
    """The seconds of a clock, as a list of one number."""
    return [0.0]


@pytest.fixture
def live(terminal, now):
    """A display that is stopped at the end of the test, and a function that gives the words it has written so far."""
    display = LiveDisplay(terminal, clock=lambda: now[0])
    display.on_start(None)

    def words():
        display._live.refresh()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue()).split()

    yield display, words
    display.on_end(None)


def test_the_view_has_every_number_but_those_of_layers(live):
    display, words = live
    assert words()[:4] == ["compiling", "the", "first", "step,"]
    display.on_block(progress(**OF_LAYERS))
    assert words()[-8:] == ["loss", "grad_norm", "accuracy", "radius", "0.5", "2", "0.9", "3"]
    assert not [word for word in words() if word.startswith(("norm/", "angle/"))]


def test_every_epoch_leaves_a_line_below_one_header(live, now):
    display, words = live
    for epoch in (1, 2):
        now[0] = 1.0 * epoch
        display.on_block(progress())
        display.on_epoch(progress(), {**SUMMARY, "epoch": epoch, "norm/dense": 5.0})
    text = " ".join(words())
    assert text.count("epoch step s loss accuracy val_[loss]") == 1
    for epoch in "12":
        assert f"{epoch} 46 3.2 0.5 0.9 0.75" in text
    assert "norm/" not in text


def epochs_of(display, now, seconds, count):
    """Shows `count` epochs, one every so many seconds, and the end."""
    for epoch in range(1, count + 1):
        now[0] += seconds
        display.on_epoch(progress(), {**SUMMARY, "epoch": epoch})
    display.on_end(None)


@pytest.mark.parametrize(
    ("seconds", "options", "shown"),
    [
        (1 / 64, {}, [1, 65, 129, 193, 200]),
        (1 / 64, {"epoch_seconds": 0}, range(1, 201)),
        (1.0, {}, range(1, 201)),
        (0.75, {"epoch_seconds": 100}, [1, 135, 200]),
    ],
)
def test_lines_of_short_epochs_are_a_second_apart(now, seconds, options, shown):
    said = []
    epochs_of(PlainLines(said.append, clock=lambda: now[0], **options), now, seconds, 200)
    assert [int(line.split()[1]) for line in said] == list(shown)


def test_a_view_has_the_same_lines(terminal, now):
    display = LiveDisplay(terminal, clock=lambda: now[0])
    display.on_start(None)
    epochs_of(display, now, 1 / 64, 200)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())
    assert [int(epoch) for epoch in re.findall(r"(\d+) +46 +3\.2 ", shown)] == [1, 65, 129, 193, 200]


def test_a_run_without_an_epoch_ends_without_a_line():
    said = []
    plain = PlainLines(said.append)
    plain.on_start(None)
    plain.on_end(None)
    assert said == []


def test_the_last_validation_stays_in_view(live):
    display, words = live
    display.on_epoch(progress(), SUMMARY)
    display.on_block(progress(step=47))
    assert words()[-10:] == ["loss", "grad_norm", "accuracy", "val_[loss]", "radius", "0.5", "2", "0.9", "0.75", "3"]


@pytest.mark.parametrize(("environment", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_left_out_where_they_are_not_wanted(environment, colours):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm-256color"} | environment
    )
    display = LiveDisplay(console)
    display.on_start(None)
    display.on_block(progress())
    display.on_end(None)
    assert bool(re.search(r"\x1b\[(\d;)*[349]\d", console.file.getvalue())) is colours


@pytest.mark.parametrize(("goes_to_a_file", "name"), [(True, "StringIO"), (False, "FileProxy")])
def test_errors_that_go_to_a_file_stay_there(terminal, monkeypatch, goes_to_a_file, name):
    errors = io.StringIO()
    monkeypatch.setattr(errors, "isatty", lambda: not goes_to_a_file, raising=False)
    monkeypatch.setattr(sys, "stderr", errors)
    display = LiveDisplay(terminal)
    display.on_start(None)
    during = type(sys.stderr).__name__
    display.on_end(None)
    assert during == name
    assert sys.stderr is errors


def test_speed_is_that_of_the_last_seconds():
    speed = Speed()
    assert speed.after(progress(step=1, seconds=20.0)) is None  # compiled
    assert speed.after(progress(step=11, seconds=21.0)) == pytest.approx(10)
    for seconds in range(22, 40):
        last = speed.after(progress(step=11 + 100 * (seconds - 21), seconds=float(seconds)))
    assert last == pytest.approx(100)
    assert speed.after(progress(step=500, seconds=41.0)) is None  # went back to a checkpoint
    assert speed.after(progress(step=502, seconds=141.0)) == pytest.approx(0.02)  # a block longer than the window


def test_plain_lines_come_with_epochs_and_after_silence():
    now, said = [0.0], []
    plain = PlainLines(said.append, every_seconds=10, clock=lambda: now[0])
    plain.on_start(None)
    plain.on_block(progress())
    now[0] = 10.0
    plain.on_block(progress(**OF_LAYERS))
    now[0] = 19.0
    plain.on_block(progress())
    plain.on_epoch(progress(), {**SUMMARY, "angle/dense": 1.0})
    assert said == [
        "epoch 2  step 46  3.0 s  loss 0.5  grad_norm 2  accuracy 0.9  radius 3",
        "epoch 2  step 46  3.2 s  loss 0.5  accuracy 0.9  val_[loss] 0.75",
    ]


def test_lines_and_view_have_the_same_numbers_counters_last(live, now):
    counting = {"pairs": np.array([7], "int32"), "damping": [0.25]}
    display, words = live
    said = []
    plain = PlainLines(said.append, clock=lambda: now[0])
    plain.on_start(None)
    for one in (display, plain):
        one.on_epoch(progress(), SUMMARY)
    now[0] = 60.0
    for one in (display, plain):
        one.on_block(progress(**counting))
    names = ["loss", "grad_norm", "accuracy", "val_[loss]", "radius", "damping", "pairs"]
    assert words()[-14:-7] == names
    assert said[-1].split()[6::2] == names


def test_a_line_ends_with_a_whole_number(now):
    said = []
    plain = PlainLines(said.append, clock=lambda: now[0])
    plain.on_start(None)
    now[0] = 60.0
    plain.on_block(progress(**{f"scalar_{i}": [0.125] for i in range(20)}))
    assert 100 < len(said[0]) <= 120
    assert said[0].endswith(" 0.125")
