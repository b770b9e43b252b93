"""Tests of trainloop.checks: what is accepted and as which type, what is refused and in which words."""

from __future__ import annotations

import fractions
import math

import numpy as np
import pytest

from trainloop import checks

NOT_NUMBERS = [True, False, np.True_, None, "1", "nan", [1.0], np.array([1.0]), 1j, float]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")]


def message_of(check, *arguments, **options) -> str:
    """The one line with which `check` refuses."""
    with pytest.raises(ValueError, match="must be") as caught:
        check(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- real -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [0.25, -3, 7, np.float64(0.5), np.float32(0.5), np.int64(2), np.uint8(3), fractions.Fraction(1, 4)]
)
def test_real_takes_every_kind_of_number_as_a_float(value):
    checked = checks.real("rate", value)
    assert type(checked) is float
    assert checked == value


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_FINITE], ids=repr)
def test_real_refuses_what_is_no_finite_number(value):
    assert message_of(checks.real, "rate", value) == f"rate must be a finite number, received {value!r}"


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["positive", "negative"])
def test_real_refuses_an_integer_beyond_the_range_of_floats(value):
    assert "rate must be a finite number, received" in message_of(checks.real, "rate", value)


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "words"),
    [
        ({"above": 0}, [1e-300, 5], [0, 0.0, -1e-300], "above 0"),
        ({"at_least": 0}, [0, -0.0, 2], [-1e-300], "at least 0"),
        ({"below": 1}, [0.999, -7], [1, 1.5], "below 1"),
        ({"at_most": 1}, [1, 0.5], [1.0000001], "at most 1"),
        ({"at_least": 0, "below": 1}, [0, 0.5], [1, -1], "at least 0 and below 1"),
        ({"above": -0.5, "at_most": 2.5}, [0, 2.5], [-0.5, 3], "above -0.5 and at most 2.5"),
    ],
)
def test_real_holds_the_ends_of_the_interval(limits, inside, outside, words):
    assert [checks.real("m", value, **limits) for value in inside] == inside
    for value in outside:
        expected = f"m must be a finite number {words}, received {value!r}"
        assert message_of(checks.real, "m", value, **limits) == expected


def test_real_names_the_interval_for_what_is_no_number_too():
    assert message_of(checks.real, "m", "fast", above=0) == "m must be a finite number above 0, received 'fast'"


# --- integer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -5, 2**70, np.int32(4), np.uint8(255)])
def test_integer_takes_every_kind_of_integer_as_an_int(value):
    checked = checks.integer("steps", value)
    assert type(checked) is int
    assert checked == value


@pytest.mark.parametrize("value", [*NOT_NUMBERS, *NOT_FINITE, 1.0, np.float32(2)], ids=repr)
def test_integer_refuses_what_is_no_integer(value):
    assert message_of(checks.integer, "steps", value) == f"steps must be an integer, received {value!r}"
    limited = message_of(checks.integer, "steps", value, at_least=1)
    assert limited == f"steps must be an integer of at least 1, received {value!r}"


@pytest.mark.parametrize("limit", [-1, 0, 1])
def test_integer_holds_its_limit(limit):
    assert checks.integer("steps", limit, at_least=limit) == limit
    message = message_of(checks.integer, "steps", limit - 1, at_least=limit)
    assert message == f"steps must be an integer of at least {limit}, received {limit - 1}"


# --- flag -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, False])
def test_flag_takes_booleans(value):
    assert checks.flag("shuffle", value) is value


@pytest.mark.parametrize("value", [0, 1, 1.0, "True", "", None, np.True_, []], ids=repr)
def test_flag_refuses_what_only_looks_like_a_boolean(value):
    assert message_of(checks.flag, "shuffle", value) == f"shuffle must be True or False, received {value!r}"


# --- choice and near_miss -------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["dense", "auto"])
def test_choice_returns_an_allowed_word(word):
    assert checks.choice("storage", word, ("dense", "auto")) == word


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("dnse", " (did you mean 'dense'?)"),
        ("DENSE", " (did you mean 'dense'?)"),
        ("sparse-matrix", ""),
        ("", ""),
        (None, ""),
        (3, ""),
        (["dense"], " (did you mean 'dense'?)"),
    ],
)
def test_choice_names_the_allowed_words_and_the_nearest(value, hint):
    expected = f"storage must be one of dense, auto; received {value!r}{hint}"
    assert message_of(checks.choice, "storage", value, ("dense", "auto")) == expected


@pytest.mark.parametrize(
    ("word", "hint"),
    [("momentun", " (did you mean 'momentum'?)"), ("Adma", " (did you mean 'adam'?)"), ("xyz", ""), (None, "")],
)
def test_near_miss_names_at_most_one_word(word, hint):
    assert checks.near_miss(word, ["adam", "adamw", "momentum"]) == hint


def test_near_miss_of_nothing_known():
    assert checks.near_miss("adam", []) == ""


def test_an_argument_may_go_by_the_name_that_keras_gives_it():
    assert checks.one_of_two("by", 0.5, "min_delta", None, 0.0) == 0.5
    assert checks.one_of_two("by", 0.0, "min_delta", 0.25, 0.0) == 0.25
    with pytest.raises(ValueError, match=r"two names of one argument, received by=0.5 and min_delta=0.25; give one of"):
        checks.one_of_two("by", 0.5, "min_delta", 0.25, 0.0)


def test_what_would_move_a_cursor_or_turn_lines_round_is_written_out():
    assert checks.printable("plain, größer\n\tand indented") == "plain, größer\n\tand indented"
    text = checks.printable("a\x1b[2J\r\x07b\x7f\x9b\u202ec\ud800\u2028")
    assert text == r"a\x1b[2J\r\x07b\x7f\x9b\u202ec\ud800\u2028"
