"""Where one call of `TrainLoop.run` stands, in plain Python: its goal, its position, its record."""

import time

import numpy as np

from trainloop.hooks.base import Progress
from trainloop.loop.goal import smallest
from trainloop.results import RunResult
from trainloop.status import Status


def summary_names(metrics, validated, hooks=(), terms=()):
    """What the summaries of epochs will have, in their order, as `Bookkeeping.finish_epochs` makes them.

    Args:
        metrics: the `MetricSet`.
        validated: whether there are validation data.
        hooks: those of the loop, which may add numbers.
        terms: columns of the terms of the loss, which validation measures.

    Returns:
        list of names.
    """
    measured = ["loss", *metrics.names()]
    validation = [f"val_{name}" for name in ("loss", *terms, *measured[1:])] if validated else []
    return ["epoch", "step", "seconds", *measured, *validation, *(name for hook in hooks for name in hook.adds)]


class Bookkeeping:
    """Counts steps and epochs of one run and says when it is over.

    Args:
        feed: the feed the run takes its batches from; its position is advanced here and nowhere else.
        step: steps the optimizer has taken before.
        evaluations: that were counted before, by kind; None where every step takes one f and one gradient.
        joined: blocks may go on over the ends of epochs, each of which is one step.

    Attributes:
        last_step, last_epoch: after which the run ends, in total; None for no such end. See `aim`.
    """

    def __init__(self, feed, step, evaluations=None, joined=False):
        self.last_step = self.last_epoch = None
        self._joined = joined
        self.feed, self.step, self.first_step, self.first_epoch = feed, step, step, feed.epoch
        self.began = time.perf_counter()
        self.recorder, self.status = Recorder(), Status.RUNNING
        self.first_evaluations = evaluations
        self.measured = {}  # newest numbers of the hooks `Measure`
        self.interrupted_by = None  # name of the exception

    @property
    def steps_taken(self):
        return self.step - self.first_step

    def aim(self, goal):
        """Say where the run ends, counted from where it stands now.

        Args:
            goal: a `Goal`.
        """
        self.last_step, self.last_epoch = goal.last_step(self.step), goal.last_epoch(self.feed.epoch)
        self.status = self.status_by_goal()

    def state(self):
        """Where the run stands, for a checkpoint: JSON-able."""
        return {
            "step": self.step,
            "epoch": self.feed.epoch,
            "index": self.feed.index,
            "first_step": self.first_step,
            "first_epoch": self.first_epoch,
            "first_evaluations": self.first_evaluations,
            "seconds": time.perf_counter() - self.began,
            "recorder": self.recorder.state(),
        }

    def load_state(self, state):
        """Stand where the run of a checkpoint stood, with its beginning: its record goes on. The goal stays.

        Args:
            state: what `state` returned. The feed stands there already.
        """
        for name in ("step", "first_step", "first_epoch", "first_evaluations"):
            setattr(self, name, state[name])
        # After a rollback the clock is not put back: what was done in vain took its time too.
        self.began = min(self.began, time.perf_counter() - state["seconds"])
        self.recorder.load_state(state["recorder"], self.step)
        self.measured = {}
        self.status = self.status_by_goal()

    def steps_available(self):
        """Steps to the end of the epoch or of the run, None when neither is known."""
        left = None if self.last_step is None else self.last_step - self.step
        if self._joined:
            return smallest(left, None if self.last_epoch is None else self.last_epoch - self.feed.epoch)
        return smallest(self.feed.available(), left)

    def take(self, block, wanted, columns, dropped=0, measured=None, **position):
        """Account for a block, and for batches at its end that led to no step.

        Args:
            block: a `Block`.
            wanted: how many steps it was to have.
            columns: NumPy dtypes of its rows by name.
            dropped: how many batches at its end led to no step.
            measured: {name: number} after its last step, NaN for what was not measured; None for nothing.
            position: numbers that all its steps have in common, by name.

        Returns:
            Whether it ended the epoch.
        """
        count, measured = len(block.rows), measured or {}
        self._epochs_before = self.feed.epoch
        position = {name: np.full(count, value) for name, value in {"epoch": self.feed.epoch + 1, **position}.items()}
        position = {"step": self.step + 1 + np.arange(count), **position}
        if self._joined:
            position["epoch"] += np.arange(count)
        named = {name: block.rows[:, i].astype(dtype) for i, (name, dtype) in enumerate(columns.items())}
        last = {name: np.append(np.full(max(0, count - 1), np.nan), value)[:count] for name, value in measured.items()}
        self.logs = {**position, **named, **last}
        known = {name: value for name, value in measured.items() if not np.isnan(value)}
        self.measured = {**measured, **self.measured, **known}
        if count:
            self.recorder.add_block(self.logs)
        self.status = block.status
        self.step += count
        batches = count + dropped
        self.epoch, self.epoch_step = self.feed.epoch + 1, self.feed.index + batches
        if self._joined:
            self.epoch, self.epoch_step = self.feed.epoch + batches, 1
        ended_early = dropped or block.status != Status.RUNNING
        return self.feed.advance(batches, batches if ended_early else wanted)

    def check_counter(self, iterations):
        """Every step that did not fail must have been committed; anything else would be a silent loss."""
        expected = self.step - (1 if self.status.failed else 0)
        if iterations != expected:
            raise RuntimeError(
                f"the optimizer counts {iterations} steps where the loop counts {expected}; is it used by "
                "two loops, or is its `iterations` assigned elsewhere?"
            )

    def progress(self, metrics):
        epoch_steps = self.feed.steps_per_epoch
        by_steps = None if self.last_step is None else self.last_step - self.first_step
        by_epochs = None
        if self.last_epoch is not None and epoch_steps is not None:
            done_before = (self.epoch - 1) * epoch_steps + self.epoch_step - self.steps_taken
            by_epochs = self.last_epoch * epoch_steps - done_before
        return Progress(
            step=self.step,
            epoch=self.epoch,
            epoch_step=self.epoch_step,
            steps_per_epoch=epoch_steps,
            run_step=self.steps_taken,
            run_steps=smallest(by_steps, by_epochs),
            seconds=time.perf_counter() - self.began,
            logs=self.logs,
            metrics=metrics,
            measured=self.measured,
        )

    def finish_epochs(self, metrics, validation):
        """Summaries of the epochs that ended with the last block, recorded: one, or where they are joined as many as it
        had steps, all of which end when the block does.

        Args:
            metrics: of the epoch, by name.
            validation: the same on the validation data; None without.
        """
        seconds = time.perf_counter() - self.began
        numbers = metrics | {f"val_{name}": value for name, value in (validation or {}).items()}
        summaries = [
            {"epoch": epoch, "step": step, "seconds": seconds, "loss": loss, **numbers}
            for epoch, step, loss in self._ended()
        ]
        for summary in summaries:
            self.recorder.add_epoch(summary)
        return summaries

    def _ended(self):
        """(number, last step, mean loss) of each epoch that the last block has ended without a failure."""
        last = () if self.status.failed else [(self.epoch, self.step, self.recorder.epoch_loss(self.epoch))]
        if not self._joined:
            return last
        whole = self.epoch - 1 - self._epochs_before
        epochs, steps, samples, losses = (self.logs[name][:whole] for name in ("epoch", "step", "samples", "loss"))
        means = losses.astype(float) * samples / samples  # rounded as a mean over several steps is
        return [*zip(epochs.tolist(), steps.tolist(), means.tolist(), strict=True), *last]

    def status_by_goal(self):
        enough_steps = self.last_step is not None and self.step >= self.last_step
        enough_epochs = self.last_epoch is not None and self.feed.epoch >= self.last_epoch
        return Status.FINISHED if enough_steps or enough_epochs else Status.RUNNING

    def result(self, stop_reason, evaluations=None):
        """What is known now; the run may also have been interrupted.

        Args:
            stop_reason: a hook's message, or None.
            evaluations: that are counted now, by kind; None as above.
        """
        interrupted = self.status == Status.RUNNING
        # A reason that came together with a failure is not how the run ended.
        asked = None if self.status.failed else stop_reason
        message = f"the run was interrupted by {self.interrupted_by}" if interrupted else asked or self.status.message
        taken = self.steps_taken
        return RunResult(
            status=Status.STOPPED if interrupted else self.status,
            message=message,
            history=self.recorder.history(),
            epochs=self.recorder.epochs(),
            step=self.step,
            seconds=time.perf_counter() - self.began,
            evaluations=self._evaluations_since(evaluations) or {"f": taken, "gradient": taken},
        )

    def _evaluations_since(self, now):
        return now and {kind: count - self.first_evaluations.get(kind, 0) for kind, count in now.items()}


class Recorder:
    """Collects blocks of steps and epochs during a run.

    The mean loss of an epoch comes from running sums, taken step after step: they are the same however the steps are
    cut into blocks, and however often the run was interrupted.
    """

    def __init__(self):
        self._blocks, self._epochs = [], []
        self._sums = {"epoch": 0, "loss": 0.0, "samples": 0.0}
        self._last_finite_loss = None

    def add_block(self, logs):
        """Keep the arrays of one block; names differ only from phase to phase."""
        self._blocks.append(logs)
        # A block may be one step long, and its arrays take ten times what is in them: few long ones are kept.
        while len(self._blocks) > 1 and len(self._blocks[-2]["step"]) <= len(self._blocks[-1]["step"]):
            self._blocks[-2:] = [joined(self._blocks[-2:])]
        newest = logs["epoch"][-1]
        if self._sums["epoch"] != newest:
            self._sums = {"epoch": int(newest), "loss": 0.0, "samples": 0.0}
        of_it = logs["epoch"] == newest
        samples = logs["samples"][of_it].astype(float)
        self._sums["loss"] = _running_sum(self._sums["loss"], logs["loss"][of_it].astype(float) * samples)
        self._sums["samples"] = _running_sum(self._sums["samples"], samples)
        finite = logs["loss"][np.isfinite(logs["loss"])]
        if finite.size:
            self._last_finite_loss = float(finite[-1])

    def add_epoch(self, summary):
        """Keep the numbers of one epoch."""
        self._epochs.append(summary)

    def history(self):
        """All steps, one array per name."""
        return joined(self._blocks)

    def epochs(self):
        """All epochs, one array per name."""
        names = self._epochs[0] if self._epochs else ()
        return {name: np.array([epoch[name] for epoch in self._epochs]) for name in names}

    def last_finite_loss(self):
        """The newest finite loss, or None."""
        return self._last_finite_loss

    def epoch_loss(self, epoch):
        """Mean loss over the samples of the newest epoch, as far as this run has seen it; NaN where it saw nothing."""
        seen = self._sums["epoch"] == epoch
        return self._sums["loss"] / self._sums["samples"] if seen else float("nan")

    def state(self):
        """What a resumed run needs: JSON-able. Steps are not part of it, there may be millions."""
        return {"epochs": self._epochs, "sums": self._sums, "last_finite_loss": self._last_finite_loss}

    def load_state(self, state, step):
        """Be as it was after a step: what came later is forgotten.

        Args:
            state: what `state` returned then.
            step: the last one to keep.
        """
        kept = [{name: values[block["step"] <= step] for name, values in block.items()} for block in self._blocks]
        self._blocks = [block for block in kept if len(block["step"])]
        self._epochs, self._sums = list(state["epochs"]), dict(state["sums"])
        self._last_finite_loss = state["last_finite_loss"]


def joined(blocks):
    """Blocks of a log end to end: one array per name, with NaN in the rows of blocks without it.

    Args:
        blocks: dicts of arrays, each with a column "step".
    """
    names = dict.fromkeys(name for block in blocks for name in block)
    return {name: np.concatenate([_column(block, name) for block in blocks]) for name in names}


def _column(block, name):
    return block[name] if name in block else np.full(len(block["step"]), np.nan, np.float32)


def _running_sum(total, terms):
    """total + terms[0] + terms[1] + ..., in this order."""
    return float(np.cumsum(np.concatenate([[total], terms]))[-1])
