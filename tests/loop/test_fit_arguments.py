"""`validation_split`, `class_weight` and `verbose` of `run`: as in Keras's `fit`."""

import io

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf
from environment import seed_generators

import trainloop as tl
from trainloop.hooks.display import PlainLines

WEIGHTS = {0: 3.0, 1: 0.5}


def samples(one_hot=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    labels = rng.integers(0, 3, 50)
    return x, np.eye(3)[labels] if one_hot else labels


def net():
    seed_generators(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])


def fit_by_keras(*data, one_hot=False, **arguments):
    model = net()
    model.compile(keras.optimizers.SGD(0.1), loss_for(one_hot))
    history = model.fit(*data, epochs=2, shuffle=False, verbose=0, **arguments).history
    return model, history


def loss_for(one_hot):
    losses = keras.losses
    return losses.CategoricalCrossentropy() if one_hot else losses.SparseCategoricalCrossentropy()


def loop_for(model, one_hot=False, **options):
    return tl.TrainLoop(model, tl.SimpleGD(0.1), loss_for(one_hot), **options)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.thorough_after(1)
def test_a_split_and_class_weights_are_those_of_fit(one_hot):
    x, y = samples(one_hot)
    model, history = fit_by_keras(x, y, one_hot=one_hot, batch_size=8, class_weight=WEIGHTS, validation_split=0.2)
    mine = net()
    data = tl.ArrayData(x, y, 8, shuffle=False)
    result = loop_for(mine, one_hot).run(data, epochs=2, class_weight=WEIGHTS, validation_split=0.2)
    np.testing.assert_allclose(mine.get_weights()[0], model.get_weights()[0], rtol=1e-6)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(result.epochs[name], history[name], rtol=1e-6)


def test_class_weights_of_a_dataset_are_those_of_fit():
    dataset = tf.data.Dataset.from_tensor_slices(samples()).batch(8)
    model, _ = fit_by_keras(dataset, class_weight={**WEIGHTS, 2: 1.0})
    mine = net()
    loop_for(mine).run(dataset, epochs=2, class_weight=WEIGHTS)
    np.testing.assert_allclose(mine.get_weights()[0], model.get_weights()[0], rtol=1e-6)


def test_a_run_with_a_split_goes_on_where_it_stopped():
    data, split = tl.ArrayData(*samples(), 8), {"class_weight": WEIGHTS, "validation_split": 0.2}
    whole, parts = loop_for(net()), loop_for(net())
    whole.run(data, steps=8, **split)
    parts.run(data, steps=3, **split)
    result = parts.run(data, until_step=8, **split)
    assert list(result.history["epoch"]) == [1, 1, 2, 2, 2]
    np.testing.assert_array_equal(parts.model.get_weights()[0], whole.model.get_weights()[0])


def test_the_batch_of_all_samples_stays_one():
    loop = loop_for(net())
    result = loop.run(tl.ArrayData(*samples(), None), steps=2, validation_split=0.5)
    assert list(result.history["samples"]) == [25, 25]
    loop = loop_for(net())
    assert list(loop.run(samples(), epochs=1, validation_split=0.5).history["samples"]) == [25]


def of_residuals():
    return tl.TrainLoop(net(), tl.SimpleGD(0.1), residuals=lambda model, batch: model(batch[0]) - 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"validation_split": 1}, "validation_split must be a finite number above 0 and below 1, received 1"),
        ({"validation_split": 0.99}, "leaves 0 of 50 samples to train on and 50 to validate on"),
        ({"validation_split": 0.5, "validation_data": samples()}, "exclude each other"),
        ({"class_weight": [1, 2]}, "class_weight must be a dict of weights by class number, received .1, 2."),
        ({"class_weight": {"cat": 1.0}}, "must be a dict of weights by class number"),
        ({"class_weight": {0: -1.0}}, r"class_weight\[0\] must be a finite number at least 0, received -1.0"),
        ({"verbose": "loud"}, "verbose must be 'auto', 0, 1 or 2, received 'loud'"),
        ({"until_step": 0}, "until_step must be an integer of at least 1, received 0"),
    ],
)
def test_arguments_that_mean_nothing_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        loop_for(net()).run(samples(), **{"epochs": 1, **arguments})


@pytest.mark.parametrize(
    ("loop", "data", "words"),
    [
        (loop_for, (*samples(), np.ones(50)), "class_weight and sample_weight exclude each other"),
        (loop_for, tl.ArrayData(samples()[0], batch_size=8), "class_weight needs targets"),
        (loop_for, (samples()[0], np.ones((50, 2, 2))), "class_weight needs targets"),
        (lambda model: of_residuals(), samples(), "class_weight needs loss"),
    ],
)
def test_data_without_classes_are_named(loop, data, words):
    with pytest.raises(ValueError, match=words):
        loop(net()).run(data, epochs=1, class_weight=WEIGHTS)


def test_a_class_that_no_target_has_is_named_in_the_log(caplog):
    loop_for(net()).run(samples(), steps=1, class_weight={0: 2.0, 7: 3.0})
    assert "class_weight names classes that no target has: 7" in caplog.text


def test_a_dataset_is_not_split():
    dataset = tf.data.Dataset.from_tensor_slices(samples()).batch(8)
    with pytest.raises(ValueError, match=r"take\(\) and skip\(\), and pass validation_data"):
        loop_for(net()).run(dataset, epochs=1, validation_split=0.5)


@pytest.mark.parametrize(("verbose", "lines"), [("auto", 0), (0, 0), (False, 0), (1, 2), (True, 2), (2, 2)])
@pytest.mark.thorough_after(1)
def test_what_is_printed_where_nobody_looks(verbose, lines, capsys):
    loop_for(net()).run(samples(), epochs=2, verbose=verbose)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed] == [f"epoch {i + 1}" for i in range(lines)]


@pytest.fixture
def terminal(monkeypatch):
    """A console that somebody looks at, in place of every new one."""
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(rich.console, "Console", lambda: console)
    return console


@pytest.mark.parametrize(("verbose", "live"), [("auto", True), (1, True), (0, False), (2, False)])
@pytest.mark.thorough_after(2)
def test_what_is_shown_on_a_terminal(verbose, live, terminal, capsys):
    loop_for(net()).run(samples(), epochs=2, verbose=verbose)
    assert ("epoch 2 of 2" in terminal.file.getvalue()) == live
    assert len(capsys.readouterr().out.splitlines()) == (2 if verbose == 2 else 0)


def test_a_hook_that_shows_the_run_is_not_doubled(terminal):
    lines = []
    loop_for(net(), hooks=[PlainLines(lines.append)]).run(samples(), epochs=2)
    assert len(lines) == 2
    assert terminal.file.getvalue() == ""


def test_a_run_inside_of_a_run_is_silent(terminal):
    class Nested(tl.Hook):
        def on_epoch(self, progress, summary):
            loop_for(net()).run(samples(), epochs=3)

    loop_for(net(), hooks=[Nested()]).run(samples(), epochs=2)
    assert "of 3" not in terminal.file.getvalue()


def test_learning_rates_are_logged_as_a_schedule_and_a_hook_change_them():
    class Halve(tl.Hook):
        def on_step(self, progress):
            self.loop.optimizer.learning_rate = 0.5 * float(self.loop.optimizer.learning_rate)

        def on_start(self, loop):
            self.loop = loop

    halved = tl.TrainLoop(net(), tl.Momentum(0.25), loss_for(False), hooks=[Halve(every_steps=2)])
    rates = halved.run(samples(), steps=5).history["learning_rate"]
    np.testing.assert_array_equal(rates, [0.25, 0.25, 0.125, 0.125, 0.0625])
    schedule = keras.optimizers.schedules.InverseTimeDecay(1.0, 1, 1.0)
    inside = tl.TrainLoop(net(), tl.BestSoFar(tl.SimpleGD(schedule)), loss_for(False))
    rates = inside.run(samples(), steps=3).history["inner.learning_rate"]
    np.testing.assert_allclose(rates, [1, 1 / 2, 1 / 3], rtol=1e-6)
