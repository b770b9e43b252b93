"""Where an epoch is one step on the same batch, a block goes on over its end: the same numbers, fewer blocks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import weights

import trainloop as tl

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(12, 2))
Y = np.sin(3 * X[:, :1]) * X[:, 1:]

FIXED = {
    "arrays": lambda: tl.ArrayData(X, Y, None),
    "tuple": lambda: (X, Y),
    "from_tensors": lambda: tf.data.Dataset.from_tensors((X, Y)),
    "one batch": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(12, drop_remainder=True).prefetch(1),
}


class Looks(tl.Hook):
    """Wants to be called at the end of every epoch, with the model as it is there."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch(self, progress, summary):
        self.seen.append((progress.epoch, progress.step, summary["epoch"], summary["step"]))


class Records(Looks):
    only_records = True


class Blocks(tl.Hook):
    def __init__(self):
        super().__init__()
        self.lengths = []

    def on_block(self, progress):
        self.lengths.append(len(progress.logs["step"]))


def net():
    seed_generators()
    layers = [keras.layers.Dense(4, "tanh", dtype="float64"), keras.layers.Dense(1, dtype="float64")]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


def trained(data, *hooks, optimizer=None, goal=None, **options):
    """(history and epochs without clocks, weights, lengths of the blocks)."""
    blocks, model = Blocks(), net()
    loop = tl.TrainLoop(model, optimizer or tl.Adam(0.01), loss="mse", hooks=[blocks, *hooks], **options)
    result = loop.run(data, **(goal or {"epochs": 30}))
    epochs = {name: values for name, values in result.epochs.items() if name != "seconds"}
    return result.history, epochs, weights(model), blocks.lengths


def assert_same(one, other):
    for named, expected in zip(one[:2], other[:2], strict=True):
        assert list(named) == list(expected)
        for name in named:
            np.testing.assert_array_equal(named[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(one[2], other[2])


@pytest.mark.parametrize(
    ("kind", "goal"),
    [(kind, {"epochs": 30}) for kind in FIXED]
    + [("tuple", {"steps": 30}), ("tuple", {"until_epoch": 30, "steps": 50})],
)
def test_the_numbers_are_those_of_one_epoch_after_another(kind, goal):
    joined = trained(FIXED[kind](), goal=goal)
    apart = trained(FIXED["arrays"](), Looks(), goal=goal)
    assert_same(joined, apart)
    assert apart[3] == [1] * 30
    assert sum(joined[3]) == 30
    assert max(joined[3]) > 1
    np.testing.assert_array_equal(joined[1]["epoch"], np.arange(1, 31))
    np.testing.assert_array_equal(joined[0]["epoch"], np.arange(1, 31))


def test_hooks_that_only_record_are_told_of_every_epoch():
    records = Records()
    *_, lengths = trained(FIXED["tuple"](), records)
    assert [of[2:] for of in records.seen] == [(i, i) for i in range(1, 31)]
    ends = np.cumsum(lengths)
    assert [of[0] for of in records.seen] == [ends[np.searchsorted(ends, i)] for i in range(1, 31)]


def moved(x, y):
    return x + tf.random.uniform([], dtype=x.dtype), y


def test_a_hook_may_get_its_method_as_an_attribute():
    hook, seen = tl.Hook(), []
    hook.on_epoch = lambda progress, summary: seen.append((progress.epoch, summary["epoch"]))
    trained(FIXED["tuple"](), hook)
    assert seen == [(i, i) for i in range(1, 31)]


@pytest.mark.parametrize("why", ["metrics", "validation", "two batches", "drawn anew"])
def test_blocks_end_with_their_epoch_where_somebody_looks_there(why):
    data = {
        "two batches": tl.ArrayData(X, Y, 6),
        "drawn anew": tf.data.Dataset.from_tensors((X, Y)).map(
            lambda x, y: (x + tf.random.uniform([], dtype=x.dtype), y)
        ),
    }.get(why, (X, Y))
    goal = {"epochs": 5} | ({"validation_data": (X, Y)} if why == "validation" else {})
    history, epochs, _, lengths = trained(data, goal=goal, metrics=["mae"] if why == "metrics" else ())
    assert max(lengths) <= (2 if why == "two batches" else 1)
    assert len(epochs["loss"]) == 5
    assert len(history["loss"]) == 5 * max(lengths)


class FailsAt(tl.SimpleGD):
    """Its twelfth step is not finite."""

    def init_state(self, x):
        return {"i": tf.zeros([], tf.int32)}

    def update(self, x, g, state):
        step = tf.where(tf.equal(state["i"], 11), tf.constant(np.nan, x.dtype), 0.01)
        return x - step * g, {"i": state["i"] + 1}


def test_a_failure_ends_the_epochs_before_it():
    results = []
    for hooks in ([], [Looks()]):
        loop = tl.TrainLoop(net(), FailsAt(0.01), loss="mse", hooks=hooks)
        with pytest.raises(tl.TrainingError) as error:
            loop.run((X, Y), epochs=30)
        results.append(error.value.result)
    joined, apart = results
    np.testing.assert_array_equal(joined.epochs["epoch"], np.arange(1, 12))
    for name in ("epoch", "step", "loss"):
        np.testing.assert_array_equal(joined.epochs[name], apart.epochs[name])
    for name in joined.history:
        np.testing.assert_array_equal(joined.history[name], apart.history[name])


@pytest.mark.parametrize("kind", ["tuple", "from_tensors"])
def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path, kind):
    whole = trained(FIXED[kind]())
    trained(FIXED[kind](), tl.SaveCheckpoint(tmp_path, every_steps=5), goal={"epochs": 15})
    model = net()
    loop = tl.TrainLoop(model, tl.Adam(0.01), loss="mse", hooks=[tl.SaveCheckpoint(tmp_path)])
    assert loop.restore(tmp_path) == 15
    result = loop.run(FIXED[kind](), until_epoch=30)
    np.testing.assert_array_equal(weights(model), whole[2])
    np.testing.assert_array_equal(result.epochs["loss"], whole[1]["loss"])


def test_f_and_g_of_a_dataset_of_one_batch_are_handed_on():
    counts = {}
    for kind in ("arrays", "from_tensors"):
        counts[kind] = trained(FIXED[kind](), optimizer=tl.LBFGS(), goal={"steps": 15})[0]["evaluations/gradient"]
    np.testing.assert_array_equal(counts["from_tensors"], counts["arrays"])
    assert counts["arrays"][-1] < 15 * 2


def test_a_dataset_of_one_batch_is_compiled_by_xla():
    compiled = trained(FIXED["from_tensors"](), jit_compile=True)
    np.testing.assert_allclose(compiled[2], trained(FIXED["from_tensors"]())[2], rtol=1e-12)
