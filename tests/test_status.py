"""Tests of trainloop.status: codes, messages, and which of several failures is reported."""

from __future__ import annotations

import itertools

import pytest
import tensorflow as tf

from trainloop.status import Status, TrainingError, first_failure


@pytest.mark.parametrize("status", Status)
def test_every_code_has_a_message_of_one_line(status):
    assert len(status.message) > 10
    assert "\n" not in status.message
    assert not status.message.endswith(".")  # messages go on after it


def test_messages_and_codes_are_distinct():
    assert len({status.message for status in Status}) == len(Status)
    assert len({int(status) for status in Status}) == len(list(Status))


@pytest.mark.parametrize("status", Status)
def test_exactly_the_codes_that_name_a_fault_are_failures(status):
    assert status.failed == status.name.startswith(("NONFINITE", "MATRIX", "HISTORY", "CONTRADICTION", "UNBOUNDED"))


def test_zero_goes_on():
    assert Status(0) is Status.RUNNING
    assert not Status.RUNNING.failed


# --- first_failure --------------------------------------------------------------------------------------

ORDER = (Status.NONFINITE_LOSS, Status.NONFINITE_STEP, Status.MATRIX_NOT_POSITIVE)


def first(a, b, c):
    return first_failure(*zip((a, b, c), ORDER, strict=True))


WAYS = {"eager": first, "function": tf.function(first), "jit": tf.function(first, jit_compile=True)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("conditions", list(itertools.product([False, True], repeat=3)))
def test_the_first_condition_that_holds_wins(way, conditions):
    code = WAYS[way](*map(tf.constant, conditions))
    held = [status for status, holds in zip(ORDER, conditions, strict=True) if holds]
    assert code.dtype == tf.int32
    assert code.shape == ()
    assert Status(int(code)) is (held[0] if held else Status.RUNNING)


def test_no_conditions_mean_no_failure():
    assert int(first_failure()) == Status.RUNNING


# --- TrainingError --------------------------------------------------------------------------------------


def test_error_with_a_last_loss():
    error = TrainingError(17, Status.NONFINITE_LOSS, 0.12345678)
    message = Status.NONFINITE_LOSS.message
    assert str(error) == f"step 17 failed (nonfinite_loss): {message}. Last finite loss 0.123457."


def test_error_without_a_last_loss():
    error = TrainingError(1, Status.NONFINITE_GRADIENT, None)
    message = Status.NONFINITE_GRADIENT.message
    assert str(error) == f"step 1 failed (nonfinite_gradient): {message}. No step had a finite loss."


def test_a_last_loss_of_zero_is_a_loss():
    assert str(TrainingError(2, Status.NONFINITE_STEP, 0.0)).endswith("Last finite loss 0.")


def test_error_carries_its_facts():
    result = object()
    error = TrainingError(3, Status.MATRIX_NOT_POSITIVE, 1.5, result)
    assert isinstance(error, RuntimeError)
    assert (error.step, error.status, error.last_loss) == (3, Status.MATRIX_NOT_POSITIVE, 1.5)
    assert error.result is result
