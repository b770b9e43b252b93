"""What is drawn of a run, at many widths."""

import io
import itertools

import numpy as np
import pytest
from rich.console import Console

from trainloop.hooks.base import Progress
from trainloop.hooks.live_view import LiveView, epoch_columns, fill, number, progress_words

NUMBERS = {
    "loss": 0.7667,
    "grad_norm": 1.234e-3,
    "accuracy": 0.3702,
    "val_loss": 0.7333,
    "val_accuracy": 0.3699,
    "B/rank": np.int32(120),
    "best_f": -1.2345e-5,
    "step_length": 1.23,
    "cycle/reach": np.nan,
    "cycle/number": 12,
    "evaluations/f": 12345,
    "evaluations/gradient": 12345,
}
SUMMARY = {"epoch": 3, "step": 2814, "seconds": 15.04, "loss": 0.8, "accuracy": 0.3, "val_loss": 0.7, "val_accuracy": 1}


def progress(**changes):
    where = {"step": 2814, "epoch": 3, "epoch_step": 938, "steps_per_epoch": 938}
    goal = {"run_step": 2814, "run_steps": 46900, "seconds": 15.0}
    return Progress(**(where | goal | {"logs": {}, "metrics": {}} | changes))


def drawn(view, width, **options):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, **options)
    console.print(view)
    return console.file.getvalue().splitlines()


def view(numbers=NUMBERS, speed=188.2, **changes):
    made = LiveView(lambda: 0.0)
    made.progress, made.numbers, made.speed = progress(**changes), numbers, speed
    return made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (2.302585, "2.303"),
        (-1.2345e-5, "-1.23e-05"),
        (1.2345e-5, "1.234e-05"),
        (np.int64(12345), "12345"),
        (1e300, "1e+300"),
        (np.float32("nan"), "nan"),
        (np.inf, "inf"),
        (0.0, "0"),
    ],
)
def test_numbers_have_four_digits_and_nine_places(value, text):
    assert number(value) == text
    assert len(text) <= 9


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140, 250])
def test_no_line_is_longer_than_the_terminal_and_no_word_is_cut(width):
    lines = drawn(view(), width)
    assert max(map(len, lines)) <= width
    whole = set(NUMBERS) | {number(value) for value in NUMBERS.values()}
    whole |= {"epoch", "of", "step", "2,814", "46,900", "steps/s", "0:03:54", "left", "and", "more"}
    words = {word for line in lines for word in line.split() if not set(word) <= set("━╸╺")}
    assert {word for word in words if not word.isdigit()} <= whole
    assert len(lines) <= 2 + 2 * 3 + 1


def test_what_does_not_fit_is_counted():
    at_80, at_40 = drawn(view(), 80), drawn(view(), 40)
    assert [line.split() for line in at_80[2::2]] == [
        ["loss", "grad_norm", "accuracy", "val_loss", "val_accuracy", "B/rank", "best_f"],
        ["step_length", "cycle/reach", "cycle/number", "evaluations/f", "evaluations/gradient"],
    ]
    assert at_40[-1] == "and 3 more"


def test_the_narrower_the_less_is_said_of_where_it_stands():
    lines = [drawn(view(), width)[1].rstrip() for width in (100, 64, 60, 40, 20)]
    bar = [set("━╸╺") & set(line) for line in lines]
    assert [bool(found) for found in bar] == [True, False, False, False, False]
    assert lines[1:] == [
        "epoch 3 of 50  step 2,814 of 46,900  188 steps/s  0:03:54 left",
        "epoch 3 of 50  step 2,814 of 46,900  0:03:54 left",
        "epoch 3 of 50  step 2,814 of 46,900",
        "epoch 3 of 50",
    ]


def test_the_bar_is_as_long_as_what_is_done():
    line = drawn(view(run_step=23450), 100)[1]
    assert line.count("━") + 0.5 * line.count("╸") == 17.5  # of 35; without colours the rest is not drawn


def test_the_first_step_is_said_to_be_compiled():
    seconds = itertools.count(100.0, 7.0)
    made = LiveView(lambda: next(seconds))
    assert drawn(made, 80) == ["compiling the first step, 7 s"]
    assert drawn(made, 80) == ["compiling the first step, 14 s"]


@pytest.mark.parametrize(
    ("changes", "speed", "words"),
    [
        ({}, None, ["epoch 3 of 50", "step 2,814 of 46,900"]),
        ({}, 0.25, ["epoch 3 of 50", "step 2,814 of 46,900", "4.0 s/step", "2 days, 0:59:04 left"]),
        ({"run_steps": None}, 5.0, ["epoch 3", "step 2,814", "5.0 steps/s"]),
        ({"steps_per_epoch": None}, 1e4, ["epoch 3", "step 2,814 of 46,900", "10,000 steps/s", "0:00:04 left"]),
        # 100 steps that begin in the midst of the third epoch end in the same one, 600 in the next
        ({"epoch_step": 400, "run_step": 10, "run_steps": 100}, None, ["epoch 3 of 3", "step 10 of 100"]),
        ({"epoch_step": 400, "run_step": 10, "run_steps": 600}, None, ["epoch 3 of 4", "step 10 of 600"]),
    ],
)
def test_where_a_run_stands(changes, speed, words):
    assert list(progress_words(progress(**changes), speed).values()) == words


def test_an_epochs_line_loses_first_what_can_be_seen_elsewhere():
    columns = [list(epoch_columns(SUMMARY, width)) for width in (80, 70, 60, 40)]
    everything = ["epoch", "step", "s", "loss", "accuracy", "val_loss", "val_accuracy"]
    without = [everything[:1] + everything[2:], everything[:1] + everything[3:], everything[:1] + everything[3:5]]
    assert columns == [everything, *without]
    assert list(epoch_columns(SUMMARY, 80).values()) == ["3", "2,814", "15.0", "0.8", "0.3", "0.7", "1"]


def test_a_name_longer_than_the_terminal_does_not_hold_up_the_others():
    assert fill({"x" * 50: "1", "loss": "2"}, 40) == ([{"x" * 50: "1"}, {"loss": "2"}], 0)
    assert max(map(len, drawn(view({"x" * 50: 1.0}), 40))) <= 40
