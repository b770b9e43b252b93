"""Errors of a user's code: their lines, and not those of libraries."""

import pathlib
import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf

import trainloop as tl

DATA = (np.ones((6, 3)), np.ones(6))


def helper(predictions):
    raise ArithmeticError("what the user said")


def wrong_loss(model, batch):
    return tf.reduce_sum(helper(model(batch[0])))


class Wrong(tl.GlobalVectorOptimizer):
    def init_state(self, x):
        return {}

    def update(self, x, g, state):
        return helper(x), state


def net():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def run(**options):
    return tl.TrainLoop(net(), tl.SimpleGD(0.1), **options).run(DATA, epochs=1)


def lines_of(error):
    """(file, function) of every line that a traceback shows, those of what led to it included."""
    shown = []
    while error is not None:
        shown += [(pathlib.Path(f.filename).name, f.name) for f in traceback.extract_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: run(loss_fn=wrong_loss), ["wrong_loss", "helper"]),
        (lambda: run(loss_fn=wrong_loss, eager=True), ["wrong_loss", "helper"]),
        (lambda: tl.TrainLoop(net(), Wrong(), "mse").run(DATA, epochs=1), ["update", "helper"]),
        (lambda: tl.TrainLoop(net(), Wrong(), "mse").inspect(DATA), ["update", "helper"]),
        (lambda: tl.minimize(helper, np.ones(3), tl.LBFGS()), ["helper"]),
    ],
)
@pytest.mark.thorough_after(1)
def test_only_the_lines_of_the_user_are_shown(call, names):
    with pytest.raises(ArithmeticError, match="what the user said") as raised:
        call()
    shown = lines_of(raised.value)
    assert {file for file, _ in shown} == {pathlib.Path(__file__).name}
    functions = [name for _, name in shown]
    assert functions[0] == "test_only_the_lines_of_the_user_are_shown"
    assert functions[-len(names) :] == names


def test_all_lines_are_shown_on_request():
    keras.config.disable_traceback_filtering()
    try:
        with pytest.raises(ArithmeticError) as raised:
            run(loss_fn=wrong_loss)
    finally:
        keras.config.enable_traceback_filtering()
    assert "train_loop.py" in [file for file, _ in lines_of(raised.value)]


def test_the_place_where_an_argument_is_refused_is_behind_the_call():
    with pytest.raises(ValueError, match="steps must be an integer") as raised:
        tl.TrainLoop(net(), tl.SimpleGD(0.1), "mse").run(DATA, steps=0)
    assert [file for file, _ in lines_of(raised.value)] == [pathlib.Path(__file__).name, "checks.py"]
