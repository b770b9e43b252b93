"""Evaluations are counted where they happen: in loops, in the branch that is taken, in training."""

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, dense_net

from trainloop import (
    LBFGS,
    SAM,
    ArrayData,
    FunctionObjective,
    Hook,
    LeastSquares,
    Momentum,
    NewtonCG,
    TrainLoop,
    minimize,
)
from trainloop.objectives.counting import KINDS, Counted, Evaluations

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

X = tf.constant([1.0, 2.0], tf.float64)
NONE = dict.fromkeys(KINDS, 0)


def counted(objective=None):
    evaluations = Evaluations()
    return Counted(objective or LeastSquares(lambda x: x**2), evaluations), evaluations


CALLS = {
    "value": ((X,), {"f": 1}),
    "value_and_grad": ((X,), {"f": 1, "gradient": 1}),
    "hvp": ((X, X), {"Hv": 1}),
    "ggnvp": ((X, X), {"Gv": 1}),
    "ggn": ((X,), {"J": 1}),
    "jacobian": ((X,), {"J": 1}),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("method", CALLS)
def test_every_method_counts_as_its_kind_and_gives_what_it_gave(method, compiled):
    arguments, expected = CALLS[method]
    objective, evaluations = counted()
    function = getattr(objective, method)
    if compiled:
        function = tf.function(function, autograph=False)
        function.get_concrete_function(*arguments)  # a trace is no evaluation
    assert evaluations.as_dict() == NONE
    for times in (1, 2, 3):
        given = function(*arguments)
        assert evaluations.as_dict() == NONE | {kind: times * count for kind, count in expected.items()}
    plain = getattr(LeastSquares(lambda x: x**2), method)(*arguments)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), given, plain)


def test_a_first_pass_is_one_value_and_one_gradient():
    class Model:
        def first_pass(self):
            return "f and g"

    objective, evaluations = counted(Model())
    assert objective.first_pass() == "f and g"
    assert evaluations.as_dict() == NONE | {"f": 1, "gradient": 1}


def test_a_loop_counts_every_time_round():
    objective, evaluations = counted()

    @tf.function(autograph=False)
    def run(k):
        def body(i, total):
            return i + 1, total + objective.value(X) + tf.reduce_sum(objective.ggnvp(X, X))

        return tf.while_loop(lambda i, _: i < k, body, [0, tf.zeros([], tf.float64)])[1]

    for k in (3, 0, 4):
        run(tf.constant(k))
    assert evaluations.as_dict() == NONE | {"f": 7, "Gv": 7}


def test_only_the_branch_that_is_taken_counts():
    objective, evaluations = counted()

    @tf.function(autograph=False)
    def run(taken):
        return tf.cond(taken, lambda: objective.value(X), lambda: objective.value_and_grad(X)[0])

    for taken in (True, False, False):
        run(tf.constant(taken))
    assert evaluations.as_dict() == NONE | {"f": 3, "gradient": 2}


def test_an_evaluation_whose_result_nobody_uses_counts():
    objective, evaluations = counted()

    @tf.function(autograph=False)
    def run():
        objective.value(X)
        return tf.zeros([])

    run()
    assert evaluations.as_dict() == NONE | {"f": 1}


def test_counts_can_be_read_between_evaluations():
    objective, evaluations = counted()

    @tf.function(autograph=False)
    def run():
        objective.value(X)
        middle = evaluations.read()["f"]
        objective.value(X)
        return middle, evaluations.read()["f"]

    assert [int(count) for count in run()] == [1, 2]
    assert {count.dtype for count in evaluations.read().values()} == {tf.int64}


def test_several_kinds_are_added_at_once():
    evaluations = Evaluations()
    evaluations.add(f=2, Hv=3)
    evaluations.add()
    assert evaluations.as_dict() == {"f": 2, "gradient": 0, "Hv": 3, "Gv": 0, "J": 0}


def test_a_kind_that_nobody_knows_is_refused():
    evaluations = Evaluations()
    with pytest.raises(ValueError, match=r"f, gradient, Hv, Gv, J; received hvp"):
        evaluations.add(f=1, hvp=1)
    assert evaluations.as_dict() == NONE


# --- Against a counter inside the function ----------------------------------------------------------------


class Counter:
    """A number that no objective puts back, because it is no variable: the entry of a table."""

    def __init__(self):
        self._table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)

    def add(self):
        key = tf.constant(0, tf.int64)
        self._table.insert(key, self._table.lookup(key) + 1)

    def __int__(self):
        return int(self._table.lookup(tf.constant(0, tf.int64)))


class Recorder(Hook):
    """How often the loss has run at the end of every step."""

    every_steps = 1

    def __init__(self, counter):
        self.counter, self.seen = counter, []

    def on_step(self, progress):
        self.seen.append(int(self.counter))


def train(optimizer, **options):
    """Four steps with a loss that counts how often it runs; (result, counts after each step, a second result)."""
    model, (x, y) = dense_net(), blobs(16)
    counter = Counter()

    def loss_fn(model, batch):
        counter.add()
        targets = tf.one_hot(batch[1], 3, dtype=tf.float64)
        return tf.reduce_mean((model(batch[0], training=True) - targets) ** 2)

    recorder = Recorder(counter)
    loop = TrainLoop(model, optimizer, loss_fn=loss_fn, hooks=[recorder], **options)
    data = ArrayData(x, y, batch_size=None)
    result = loop.run(data, steps=4)
    before = int(counter)
    again = loop.run(data, steps=2)
    return result, np.array(recorder.seen), again, int(counter) - before


def test_a_line_search_is_counted_as_a_counter_in_the_loss_counts():
    result, counts, again, calls = train(LBFGS(m=2))
    np.testing.assert_array_equal(result.history["evaluations/f"], counts[:4])
    np.testing.assert_array_equal(result.history["evaluations/gradient"], counts[:4])
    assert result.evaluations == NONE | {"f": counts[3], "gradient": counts[3]}
    assert counts[3] > 4  # the first pass, and at least one point of the line search
    assert again.evaluations["f"] == calls


def test_hessian_products_are_counted_as_a_counter_in_the_loss_counts():
    result, counts, again, calls = train(NewtonCG(curvature="hessian", max_products=3))
    evaluations = result.evaluations
    assert evaluations["f"] == evaluations["gradient"] == 2 * 4  # one at the point, one at the trial
    assert evaluations["Gv"] == 0
    assert evaluations["f"] + evaluations["Hv"] == counts[3]
    assert evaluations["Hv"] == result.history["products"].sum()
    np.testing.assert_array_equal(result.history["evaluations/f"] + result.history["evaluations/Hv"], counts[:4])
    assert again.evaluations["f"] + again.evaluations["Hv"] == calls


def test_a_microbatch_is_a_part_of_an_evaluation():
    result, counts, *_ = train(SAM(Momentum(0.1)), microbatch_size=6)
    np.testing.assert_array_equal(result.history["evaluations/f"], [2, 4, 6, 8])
    np.testing.assert_array_equal(3 * result.history["evaluations/f"], counts[:4])


def test_methods_that_evaluate_nothing_take_one_gradient_per_step():
    result, counts, *_ = train(Momentum(0.1))
    assert result.evaluations == {"f": 4, "gradient": 4}
    assert counts[3] == 4
    assert "evaluations/f" not in result.history


def test_a_minimisation_is_counted_as_a_counter_in_the_function_counts():
    counter = tf.Variable(0, dtype=tf.int64)

    def fun(x):
        counter.assign_add(1)
        return tf.reduce_sum((x**2 - 1) ** 2)

    result = minimize(FunctionObjective(fun), [3.0, -0.3], LBFGS(line_search="armijo"), max_steps=5)
    assert result.evaluations["f"] == int(counter) > result.evaluations["gradient"]  # a backtracking search
    assert result.history["evaluations/f"][-1] == int(counter)
    assert np.all(np.diff(result.history["evaluations/f"]) >= 1)
