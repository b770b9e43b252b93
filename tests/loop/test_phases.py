"""Runs of several optimizers, one after the other: where phases end, one log, one resume."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import blobs, crossentropy, dense_net, weights

import trainloop as tl
from trainloop.optimizer import memory_plan

RNG = np.random.default_rng(0)
WALL = RNG.uniform(size=(6, 2))


def net():
    seed_generators()
    layers = [keras.layers.Dense(k, a, dtype="float64") for k, a in ((4, "tanh"), (1, None))]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


RESIDUALS = {"pde": lambda m, p: m(p) - tf.reduce_sum(p, 1, keepdims=True), "wall": lambda m, p: m(p) - 1}


def points(drawn=False):
    sizes = {"pde": 8} if drawn else None
    return tl.Points({"pde": tl.Box([0, 0], [1, 2], 20, "float64"), "wall": WALL}, batch_size=sizes)


def adam_then_lbfgs(steps=5):
    return [tl.Phase(tl.Adam(0.01), steps=steps), tl.Phase(tl.LBFGS())]


def make_loop(phases=None, **options):
    return tl.TrainLoop(net(), adam_then_lbfgs() if phases is None else phases, residuals=RESIDUALS, **options)


@pytest.mark.thorough
def test_the_second_optimizer_begins_where_the_first_one_ended():
    loop = make_loop()
    result = loop.run(points(), steps=9)
    # The same by hand: two loops on one model.
    model, data = net(), points()
    first = tl.TrainLoop(model, tl.Adam(0.01), residuals=RESIDUALS).run(data, steps=5)
    second = tl.TrainLoop(model, tl.LBFGS(), residuals=RESIDUALS).run(data, steps=4)
    np.testing.assert_array_equal(weights(loop.model), weights(model))
    for name in ("loss", "grad_norm", "term/pde"):
        by_hand = np.concatenate([first.history[name], second.history[name]])
        np.testing.assert_array_equal(result.history[name], by_hand)
    assert result.history["phase"].tolist() == [0] * 5 + [1] * 4
    assert result.history["step"].tolist() == list(range(1, 10))
    assert isinstance(loop.optimizer, tl.LBFGS)
    assert result.step == 9
    # What only LBFGS logs is not known of the steps of Adam.
    assert np.isnan(result.history["step_length"][:5]).all()
    np.testing.assert_array_equal(result.history["step_length"][5:], second.history["step_length"])
    assert result.evaluations == {
        kind: first.evaluations.get(kind, 0) + second.evaluations[kind] for kind in second.evaluations
    }
    assert result.history["evaluations/f"][4] == 5
    assert result.history["phase"].dtype.kind == "i"


@pytest.mark.parametrize(
    ("later", "free", "options", "words"),
    [
        (lambda: tl.TestGD(storage="factored"), None, {"jit_compile": True}, "XLA cannot compile"),
        (lambda: tl.LBFGS(), None, {"on_nonfinite": "rollback"}, "no learning rate, radius or damping"),
        # TestGD keeps 17^2 numbers of 8 bytes, which Adam does not.
        (lambda: tl.TestGD(storage="dense"), 2000, {}, "TestGD needs .* for n = 17 parameters, and 2.0 KiB are free"),
    ],
)
def test_a_later_phase_that_cannot_begin_is_named_before_the_first_one_does(later, free, options, words, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: free)
    with pytest.raises(ValueError, match=words):
        make_loop([tl.Phase(tl.Adam(0.01), steps=3), tl.Phase(later())], **options)


def test_one_optimizer_has_no_column_of_phases():
    assert "phase" not in make_loop(tl.SimpleGD(0.1)).run(points(), steps=2).history


class Ending(tl.GlobalVectorOptimizer):
    """Goes nowhere, and ends after some steps with a status."""

    def __init__(self, after, status, name="ending"):
        super().__init__(None, name=name)
        self.after, self.status = after, int(status)

    def init_state(self, x):
        return {"count": tf.constant(0), "status": tf.constant(0)}

    def update(self, x, g, state):
        count = state["count"] + 1
        return x, {"count": count, "status": tf.where(count >= self.after, self.status, 0)}

    def get_config(self):
        return {**super().get_config(), "after": self.after, "status": self.status}


@pytest.mark.parametrize("status", [tl.Status.CONVERGED, tl.Status.STALLED])
@pytest.mark.thorough_after(1)
def test_an_optimizer_that_ends_ends_its_phase_and_the_last_one_the_run(status):
    phases = [tl.Phase(Ending(3, status)), tl.Phase(tl.SimpleGD(0.1), steps=2), tl.Phase(Ending(2, status))]
    loop = make_loop(phases)
    result = loop.run(points(), steps=100)
    assert result.history["phase"].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert (result.status, loop.optimizer) == (status, phases[2].optimizer)


def test_a_failure_ends_the_run_in_any_phase():
    phases = [tl.Phase(Ending(2, tl.Status.CONVERGED)), tl.Phase(Ending(2, tl.Status.MATRIX_NOT_POSITIVE))]
    with pytest.raises(tl.TrainingError) as caught:
        make_loop(phases).run(points(), steps=100)
    assert (caught.value.step, caught.value.result.history["phase"].tolist()) == (4, [0, 0, 1, 1])


@pytest.mark.parametrize("steps_per_call", [1, 3, None])
@pytest.mark.thorough_after(1)
def test_a_plateau_is_found_at_the_same_step_whatever_the_blocks(steps_per_call):
    # By the rule, from the losses of Adam alone.
    phases = [tl.Phase(tl.Adam(0.05), until=tl.Plateau("loss", patience=4, min_delta=0.02)), tl.Phase(tl.LBFGS())]
    result = make_loop(phases, steps_per_call=steps_per_call).run(points(), steps=80)
    ended = int(np.sum(result.history["phase"] == 0))
    best, window = np.inf, None
    alone = make_loop(tl.Adam(0.05)).run(points(), steps=80).history["loss"]
    for end in range(4, 81, 4):
        window = alone[end - 4 : end].min()
        if not window < best - 0.02:
            break
        best = min(best, window)
    assert 4 < end < 80
    assert ended == end


def test_all_phases_with_steps_need_no_goal_and_end_for_good():
    loop = make_loop([tl.Phase(tl.Adam(0.01), steps=3), tl.Phase(tl.SimpleGD(0.1), steps=2)])
    data = points()
    result = loop.run(data)
    assert (result.status, result.step) == (tl.Status.FINISHED, 5)
    for goal in ({"steps": 4}, {}):
        again = loop.run(data, **goal)
        assert (again.status, len(again.history)) == (tl.Status.FINISHED, 0)


@pytest.mark.thorough
def test_phases_with_steps_are_resumed_without_a_goal(tmp_path):
    def loop():
        phases = [tl.Phase(tl.Adam(0.01), steps=4), tl.Phase(tl.SimpleGD(0.1), steps=3)]
        return make_loop(phases, hooks=[tl.SaveCheckpoint(tmp_path)])

    loop().run(points(), steps=3)
    for taken in (4, 0):
        resumed = loop()
        resumed.restore(tmp_path)
        result = resumed.run(points())
        assert (result.status, result.step) == (tl.Status.FINISHED, 7)
        assert len(result.history.get("step", ())) == taken


@pytest.mark.parametrize("cut", [2, 5, 6])
@pytest.mark.thorough
def test_the_steps_of_the_last_phase_may_be_others_when_a_run_goes_on(cut, tmp_path):
    def loop(last, *hooks):
        return make_loop([tl.Phase(tl.Adam(0.01), steps=4), tl.Phase(tl.LBFGS(), steps=last)], hooks=hooks)

    expected = loop(4).run(points())
    loop(2, tl.SaveCheckpoint(tmp_path)).run(points(), steps=cut)
    resumed = loop(4, tl.SaveCheckpoint(tmp_path))
    assert resumed.restore(tmp_path) == cut
    np.testing.assert_array_equal(resumed.run(points()).history["loss"], expected.history["loss"][cut:])
    fewer = loop(1)
    fewer.restore(tmp_path)
    assert (fewer.run(points()).status, fewer.optimizer.iterations.numpy()) == (tl.Status.FINISHED, 4)


@pytest.mark.thorough
def test_goals_count_over_all_phases_and_epochs_go_on_in_the_middle():
    x, y = blobs()
    hook = Counting(every_steps=4)
    loop = tl.TrainLoop(
        dense_net(), [tl.Phase(tl.Adam(0.01), steps=7), tl.Phase(tl.LBFGS())], crossentropy(), metrics=["accuracy"],
        hooks=[hook],
    )  # fmt: skip
    result = loop.run(tl.ArrayData(x, y, 20), epochs=2, validation_data=(x, y))
    assert (result.step, result.epochs["step"].tolist()) == (10, [5, 10])
    assert result.history["phase"].tolist() == [0] * 7 + [1] * 3
    samples = result.history["samples"][5:]
    assert result.epochs["loss"][1] == pytest.approx(np.average(result.history["loss"][5:], weights=samples))
    assert hook.steps == [4, 8]
    assert np.isfinite(result.history["watched"]).all()


class Counting(tl.Hook):
    def __init__(self, every_steps):
        super().__init__(every_steps)
        self.steps = []

    def watch(self, step):
        return {"watched": tf.reduce_max(step.x)}

    def on_step(self, progress):
        self.steps.append(progress.step)


class Cut(tl.Hook):
    def on_step(self, progress):
        raise InterruptedError


def three_phases():
    return [
        tl.Phase(tl.Adam(0.02), until=tl.Plateau("loss", patience=3, min_delta=0.3)),
        tl.Phase(tl.LBFGS(), steps=4),
        tl.Phase(tl.Momentum(0.01)),
    ]


@pytest.mark.usefixtures("no_graph_rewriting")
@pytest.mark.parametrize(("drawn", "cuts"), [(True, (3, 11)), (False, (7, 13, 15))])
@pytest.mark.thorough_after(1)
def test_a_run_that_is_cut_in_any_phase_ends_with_the_same_bits(drawn, cuts, tmp_path):
    def loop(folder, *hooks):
        nu = tf.Variable(0.5, dtype=tf.float64)
        residuals = {**RESIDUALS, "pde": lambda m, p: nu * m(p) - tf.reduce_sum(p, 1, keepdims=True)}
        hooks = [tl.MetricsFile(folder / "log.jsonl"), tl.SaveCheckpoint(folder / "saved", every_steps=2), *hooks]
        return tl.TrainLoop(net(), three_phases(), residuals=residuals, extra_variables=[nu], hooks=hooks)

    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = loop(tmp_path / "whole")
    expected = whole.run(points(drawn), steps=17)
    assert set(expected.history["phase"]) == {0, 1, 2}
    for cut in cuts:
        part = loop(tmp_path / "cut", Cut(cut))
        part.restore(tmp_path / "cut" / "saved")
        with pytest.raises(InterruptedError):
            part.run(points(drawn), until_step=17)
    resumed = loop(tmp_path / "cut")
    assert resumed.restore(tmp_path / "cut" / "saved") == cuts[-1] - cuts[-1] % 2
    result = resumed.run(points(drawn), until_step=17)
    variables = whole.resumable().variables()
    for name, variable in resumed.resumable().variables().items():
        np.testing.assert_array_equal(variable.numpy(), variables[name].numpy(), err_msg=name)
    assert (result.step, result.evaluations) == (17, expected.evaluations)
    logs = [tl.hooks.read_run_log(tmp_path / which / "log.jsonl").history for which in ("whole", "cut")]
    for name, values in logs[0].items():
        np.testing.assert_array_equal(logs[1][name], values, err_msg=name)
        np.testing.assert_array_equal(expected.history[name], values, err_msg=name)


@pytest.mark.thorough
def test_a_loop_goes_back_into_an_earlier_phase(tmp_path):
    loop = make_loop(hooks=[tl.SaveCheckpoint(tmp_path, every_steps=3, keep=9)])
    data = points()
    expected = loop.run(data, steps=8)
    final = weights(loop.model)
    for step in (6, 8):
        (tmp_path / f"step-{step:08d}").rename(tmp_path / f"aside-{step}")
    assert loop.restore(tmp_path) == 3
    assert isinstance(loop.optimizer, tl.Adam)
    result = loop.run(data, until_step=8)
    np.testing.assert_array_equal(weights(loop.model), final)
    np.testing.assert_array_equal(result.history["loss"], expected.history["loss"][3:])
    assert result.evaluations == expected.evaluations


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        (lambda: [tl.Phase(tl.Adam(0.01), steps=6), tl.Phase(tl.LBFGS())], "another list of phases: 0 steps was 5"),
        (lambda: [tl.Phase(tl.Adam(0.01), steps=5)], "1 class was trainloop.LBFGS, here it is not there"),
        (lambda: tl.Adam(0.01), "another optimizer"),
    ],
)
@pytest.mark.thorough_after(1)
def test_a_checkpoint_of_other_phases_is_rejected_by_name(phases, words, tmp_path):
    make_loop(hooks=[tl.SaveCheckpoint(tmp_path)]).run(points(), steps=6)
    loop = make_loop(phases())
    before, optimizer = weights(loop.model), loop.optimizer
    with pytest.raises(ValueError, match=words):
        loop.restore(tmp_path)
    np.testing.assert_array_equal(weights(loop.model), before)
    assert loop.optimizer is optimizer


class Rate(tl.Hook):
    """Halves the learning rate of the optimizer that there is."""

    def on_start(self, loop):
        self.loop = loop

    def on_step(self, progress):
        self.loop.optimizer.learning_rate = 0.5 * float(self.loop.optimizer.learning_rate)


def test_a_hook_changes_the_learning_rate_of_the_current_optimizer():
    phases = [tl.Phase(tl.SimpleGD(0.1), steps=4), tl.Phase(tl.SimpleGD(0.01))]
    loop = make_loop(phases, hooks=[Rate(every_steps=2)])
    loop.run(points(), steps=6)
    assert float(loop.optimizer.learning_rate) == pytest.approx(0.005)
    assert float(phases[0].optimizer.learning_rate) == pytest.approx(0.025)


class Spoiling(tl.SimpleGD):
    """Proposes NaN as long as its rate is large."""

    def update(self, x, g, state):
        x_new, state = super().update(x, g, state)
        return tf.where(self.learning_rate > 0.3, x_new * np.nan, x_new), state


def test_a_rollback_goes_to_the_beginning_of_the_phase_and_shortens_its_steps(tmp_path):
    phases = [tl.Phase(tl.SimpleGD(0.1), steps=3), tl.Phase(Spoiling(1.0))]
    hooks = [tl.SaveCheckpoint(tmp_path, every_steps=100)]
    loop = make_loop(phases, hooks=hooks, on_nonfinite="rollback")
    result = loop.run(points(), steps=5)
    assert result.history["phase"].tolist() == [0, 0, 0, 1, 1]
    assert float(loop.optimizer.learning_rate) == pytest.approx(0.25)
    assert float(phases[0].optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.thorough
def test_files_and_figures_show_phases(tmp_path):
    loop = make_loop(hooks=[tl.MetricsFile(tmp_path / "log.jsonl"), tl.TensorBoardFile(tmp_path / "board")])
    result = loop.run(points(), steps=8)
    log = tl.hooks.read_run_log(tmp_path / "log.jsonl")
    np.testing.assert_array_equal(log.history["phase"], result.history["phase"])
    for source in (result, log):
        axes = tl.plots.draw_curves(source).axes[0]
        changes = [line for line in axes.lines if list(line.get_xdata()) == [5.5, 5.5]]
        assert len(changes) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_loop([]), r"a list of Phase\(optimizer, steps=...\), received \[\]"),
        (lambda: make_loop([tl.Adam(), tl.LBFGS()]), "a list of Phase"),
        (lambda: make_loop(tl.Phase(tl.Adam())), "phases must be a list"),
        (lambda: tl.Phase("adam"), "a Phase needs an optimizer such as LBFGS.*received 'adam'"),
        (lambda: tl.Phase(tl.Adam(), steps=0), "steps must be an integer of at least 1"),
        (lambda: tl.Phase(tl.Adam(), until=500), "until must be a Plateau"),
        (lambda: tl.Plateau("", 3), "monitor must be the name of a column"),
        (lambda: tl.Plateau("loss", 0), "patience must be"),
        (lambda: tl.Plateau("loss", 3, min_delta=-1), "min_delta must be"),
        (lambda: make_loop([tl.Phase(tl.Adam()), tl.Phase(tl.LBFGS())]), "phase 0 would never end: Adam"),
        (lambda: make_loop([tl.Phase(a := tl.Adam(), steps=1), tl.Phase(a)]), "an optimizer of its own"),
        (lambda: make_loop().run(points()), "run needs epochs=, steps=, until_epoch= or until_step="),
        (
            lambda: make_loop([tl.Phase(tl.LBFGS()), tl.Phase(tl.Adam(), until=tl.Plateau("term/pd", 3))]).run(
                points(), steps=3
            ),
            "phase 1 looks for a plateau of 'term/pd'.*did you mean 'term/pde'",
        ),
    ],
)
def test_what_cannot_be_a_phase(make, words):
    with pytest.raises(ValueError, match=words):
        make()
