"""The training loop: K steps in one compiled call, hooks in between.

A block, in this order (`TrainLoop._one_block`):

    1  how many steps: to the next hook, to the end of the epoch, or for half a second    feed.py, pace.py
    2  so many steps: batch, f and g, one all-reduce, finite check, clip, update, commit  engine.py, step.py
    3  they are accounted for; what failed is decided upon                                bookkeeping.py, nonfinite.py
    4  hooks, and after an epoch a test on the validation data                            hooks/
    5  several workers agree on whether and how to continue                               agreement.py

What holds at every moment:

    - Logs and metrics of a step describe the weights *before* its update.
    - A failed step writes nothing, neither weights nor averages nor counters; the block ends with it, and then
        `on_nonfinite` decides: `run` raises `TrainingError`, or continues.
    - Between two blocks, when all hooks have seen the last one, everything that the rest of the run depends on can be
        saved and put back (checkpoints/contents.py).
    - How many steps a block has does not change a single bit of the result.
    - Reading a block's log is the only synchronisation with Python, once per block.

With `eager=True` the same steps run as plain Python; `inspect` looks at one and does not take it.

For a model made under a `tf.distribute` strategy the steps are distributed over its replicas. Several processes do all
of this in step, each with the same arguments and the same data; only the first one calls hooks that write.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from trainloop import checks
from trainloop.checkpoints import contents
from trainloop.checkpoints.files import CheckpointFolder
from trainloop.checkpoints.resumable import Resumable
from trainloop.hooks.base import Hook, end_all
from trainloop.hooks.verbose import displays
from trainloop.loop import arguments
from trainloop.loop.bookkeeping import Bookkeeping, summary_names
from trainloop.loop.current_phase import Phases, checked_phases
from trainloop.loop.feeds import NO_DATA, Data, WithFeed, as_feed
from trainloop.loop.fit_arguments import as_in_fit
from trainloop.loop.goal import Goal, smallest
from trainloop.loop.inspection import Inspection
from trainloop.loop.measured import Measured
from trainloop.loop.nonfinite import NONFINITE, OnNonfinite
from trainloop.loop.pace import Pace
from trainloop.loop.phases import Phase
from trainloop.loop.shared import Shared
from trainloop.loop.tracebacks import filtered
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.results import RunResult
from trainloop.status import Status, TrainingError
from trainloop.types import Losses, LossFn, LossWeights, Metric, Path, Residuals, Variable

# Steps per compiled call of an evaluation by several workers, whose clocks differ.
_TEST_STEPS = 64


class TrainLoop:
    """Trains a Keras model with an optimizer that works on the flat parameter vector.

    Args:
        model: a built Keras model.
        optimizer: a `GlobalVectorOptimizer` or a `GlobalObjectiveOptimizer`; or a list of `Phase`s, one after another.
        loss: for batches (inputs, targets[, sample_weight]): a `keras.losses.Loss`, a Keras name, or a
            function (targets, predictions). For several outputs one for all, or a list or dict with one for each, as
            in `model.compile`; None for an output without a loss. Their sum is f, and each is logged ("a_loss").
        loss_fn: for any other batches: function (model, batch) -> scalar, or a dict of scalars by name, whose weighted
            sum is f, see `CustomLoss`.
        residuals: for sums of squares: a function (model, batch) -> r [N] or [N, c], or a dict of functions (model,
            points) by name, each with the points that the batch has under that name. f is the weighted sum of the
            means of r^2, see `ResidualLoss`. Exactly one of `loss`, `loss_fn` and `residuals`.
        loss_weights: by how much the loss of each output, or each term by its name, counts in f; variables may be
            changed during a run. None for ones.
        extra_variables: what is trained besides the weights of the model, such as the coefficients of an inverse
            problem: `tf.Variable`s or Keras variables. They are the last part of x, and of checkpoints.
        metrics: Keras metrics, names, or functions (targets, predictions) -> one value per sample; "accuracy" is
            chosen to fit the targets. For several outputs a list or dict with some for each. Only with `loss`. None for
            no metrics.
        weighted_metrics: metrics in which the sample weights count, as in `model.compile`; given as `metrics` are.
        hooks: `Hook`s, called in this order. None for no hooks.
        jit_compile: compile whole blocks with XLA. Needs data in memory. Faster for dense networks, slower
            for convolutions on CPUs.
        steps_per_call: at most this many steps per compiled call; None finds a length of about half a second.
        microbatch_size: take each batch in parts of at most this many samples. The sum is that of the whole batch,
            in the memory of one part; so `batch_size=None`, all data at once, works for any amount of data.
        on_nonfinite: what to do about a step that met NaN or infinity: "stop"; "skip" that step; "rollback" to the
            last checkpoint and take shorter steps, which needs the hook `SaveCheckpoint`.
        eager: compile nothing. Every step runs as Python, so that a debugger, `print` and `.numpy()` work inside of
            `update`, of the model and of the loss. Slow: ten times as long for a step of LeNet-5. The same to rounding.
        steps_per_execution, run_eagerly: Keras's names of `steps_per_call` and `eager`.

    Attributes:
        traces: how often a block of steps was traced: once per kind and shape of data, never with `eager`.
        extra_variables: as given, a tuple.
        batch_loss: what `loss`, `loss_fn` or `residuals` means, a `BatchLoss`.
        replicas: the `Replicas` of a model made under a `tf.distribute` strategy; None for a single one.
        result: the `RunResult` of the last run, also of one that an exception or Ctrl-C has ended; None before.

    Raises:
        ValueError: an argument is of the wrong kind, the model is not built, or it has nothing to train.

    Examples:
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> loop = TrainLoop(model, TestGD(), loss, metrics=["accuracy"])
        >>> result = loop.run((x, y), epochs=5, validation_data=(x, y))
        >>> len(result.epochs["val_accuracy"])
        5
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: WholeVectorOptimizer | Sequence[Phase],
        loss: Losses | None = None,
        *,
        loss_fn: LossFn | None = None,
        residuals: Residuals | None = None,
        loss_weights: LossWeights | None = None,
        extra_variables: Sequence[Variable] = (),
        metrics: Sequence[Metric | Sequence[Metric]] | Mapping[str, Any] | None = (),
        weighted_metrics: Sequence[Metric | Sequence[Metric]] | Mapping[str, Any] | None = (),
        hooks: Iterable[Hook] | None = (),
        jit_compile: bool = False,
        steps_per_call: int | None = None,
        microbatch_size: int | None = None,
        on_nonfinite: str = "stop",
        eager: bool = False,
        steps_per_execution: int | None = None,
        run_eagerly: bool | None = None,
    ) -> None:
        steps_per_call = checks.one_of_two(
            "steps_per_call", steps_per_call, "steps_per_execution", steps_per_execution, None
        )
        eager = checks.one_of_two("eager", eager, "run_eagerly", run_eagerly, False)
        phases = checked_phases(model, optimizer)
        shared = self._shared = Shared.checked(
            model,
            (loss, loss_fn, residuals, loss_weights),
            (metrics, weighted_metrics),
            hooks=hooks,
            extra_variables=extra_variables,
            microbatch_size=microbatch_size,
            jit_compile=jit_compile,
            eager=eager,
            steps_per_call=steps_per_call,
        )
        self.model, self.hooks, self.extra_variables = model, shared.hooks, shared.extra_variables
        self.batch_loss, self.replicas = shared.batch_loss, shared.replicas
        self._phases = Phases(phases, shared)
        self._phase, self._traces_before = self._phases.enter(), 0
        arguments.check_precision(self.batch_loss, self._phase.steps.vector.layout.dtype)
        self._measured = Measured(self.hooks)
        self._measured.check([*self._phase.steps.columns, *shared.metrics.names()])
        self._current, self._inspected = NO_DATA, NO_DATA
        self._nonfinite = OnNonfinite(on_nonfinite, self.optimizer)
        self._phases.check_later(on_nonfinite)
        # As model and optimizers are now: a hook may change the learning rate as soon as a run begins.
        self._identity = contents.identity(model, self._phases.identity, shared.metrics, self.extra_variables)
        self._run: Bookkeeping | None = None
        self._position: contents.Position | None = None  # where the next run continues
        self._where: str | None = None  # the first number arose that is not finite
        self._stop_reason: str | None = None
        self._display: tuple[Hook, ...] = ()
        self.result: RunResult | None = None

    def __repr__(self) -> str:
        layout = self._phase.steps.vector.layout
        return (
            f"TrainLoop({self.model.name}: n = {layout.size:,} {layout.dtype}; "
            f"{type(self.optimizer).__name__}, step {self._phase.step:,}; "
            f"{self.result.status.name if self.result else 'not run yet'})"
        )

    @property
    def optimizer(self) -> WholeVectorOptimizer:
        """The optimizer, built: that of the current phase."""
        return self._phase.optimizer

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes files; False for all but one of several workers."""
        return self._shared.workers.index == 0

    @property
    def traces(self) -> int:
        """How often a block of steps was traced: once per kind and shape of data, never with `eager`."""
        return self._traces_before + self._phase.train.traces

    def chief_says(self, value: Any) -> Any:
        """Broadcast a value from the chief. All workers must call this at the same point.

        A single process gets its own value.

        For decisions that depend on a clock, or on files that only the chief has.

        Args:
            value: what this worker would say, JSON-able.
        """
        return self._shared.workers.exchange({"value": value})[0]["value"]

    @property
    def _called(self):
        """The hooks that this process calls, first the display of the run."""
        return tuple(hook for hook in (*self._display, *self.hooks) if self.is_chief or not hook.chief_only)

    @filtered
    def run(
        self,
        data: Data,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        until_epoch: int | None = None,
        until_step: int | None = None,
        validation_data: Data | None = None,
        validation_split: float | None = None,
        class_weight: Mapping[int, float] | None = None,
        verbose: str | int | bool = "auto",
    ) -> RunResult:
        """Train. Called again with the same data it continues where it stopped, in the middle of an epoch too.

        A run ends by whichever of its goals is reached first. Where all phases have a number of steps, it needs none.

        Args:
            data: an `ArrayData`, a `tf.data.Dataset` of batches, a tuple (x, y[, sample_weight]) of arrays, which are
                copied: what is changed in them later is not seen; or points by name, a `Points` or a dict of what it
                takes, which have no epochs.
            epochs: passes over the data to do from here; a pass that was begun before counts when it is finished.
            steps: steps to do from here.
            until_epoch, until_step: the same in total, with those of earlier runs on these data, and those before a
                `restore`: a program that is started again ends where it would have ended.
            validation_data: as `data`; evaluated after every epoch, so there must be epochs. Where it is a shuffled
                dataset, its order begins anew in a run that is continued, so the last bits of "val_" may differ.
            validation_split: validate on this part of the arrays instead: the last samples, before any shuffling.
            class_weight: {class: weight}, the weight of every sample of a class; 1 for those not named.
            verbose: "auto" shows progress on a terminal and in a notebook; 0 is silent, 1 a view that moves, or lines
                where it cannot, about one a second, 2 one line for every epoch. Where a hook shows it already, nothing
                more.

        Returns:
            `RunResult`.

        Raises:
            ValueError: no goal, or not positive; data of an unknown kind; infinite validation data, or
                validation of infinite data; a hook monitors a number that no epoch will have; a layer was frozen or
                unfrozen since the loop was made; a split or class weights that the data do not allow.
            RuntimeError: this loop runs already.
            TrainingError: a step failed. Everything before it is kept, in the weights and in the error's
                `result`.
            WorkersError: several workers train together, and one is lost or does something else.
        """
        if self._run is not None:
            raise RuntimeError("this loop runs already; a hook that wants another run needs a loop of its own")
        self.optimizer.build(self._shared.trained())  # which rejects others than those of the first time
        display = displays(verbose, self.hooks)
        current = self._with_feed(data, validation_split, class_weight)
        if validation_data is not None and current.validation is not None:
            raise ValueError("validation_data and validation_split exclude each other; received both")
        validation_data = current.validation or validation_data
        run = self._aimed(current.feed, Goal(epochs, steps, until_epoch, until_step), validation_data)
        if self._inspected.feed is current.feed:
            self._inspected = NO_DATA
        self._current = current
        self._run, self._where, self._display = run, None, display
        started: list[Hook] = []
        try:
            self._start(run, started)
            with self._shared.workers.watched():
                while run.status == Status.RUNNING:
                    self._one_block(run, validation_data)
        except BaseException as error:
            run.interrupted_by = type(error).__name__
            raise
        finally:
            result = self.result = run.result(self._stop_reason, self._phase.counted())
            self._run, self._stop_reason, self._display = None, None, ()
            end_all(started, result)
        if run.status.failed:
            raise TrainingError(run.step, run.status, run.recorder.last_finite_loss(), result, self._where)
        return result

    def restore(self, folder: Path) -> int | None:
        """Go back to, or continue after an interruption from, the newest checkpoint that `SaveCheckpoint` has written.

        Weights, the optimizer's state and what hooks remember are put back now; the next `run`, on the same data,
        continues the run that was saved, in the middle of an epoch too, with the same bits as if nothing had happened.
        To end where that run would have ended, give it `until_epoch` or `until_step`. Damaged checkpoints are named in
        a warning of the log, and the one before is taken.

        A shuffled dataset as validation data is the exception: it is read in another order, so that "val_" numbers may
        differ in their last bits.

        Args:
            folder: of checkpoints. It need not exist.

        Returns:
            The step it stands at, or None where there is no checkpoint. Then nothing was changed.

        Raises:
            ValueError: the checkpoint is one of another model, optimizer or set of metrics, or a hook cannot be as it
                was; the model is as before then. `run` raises it for other data. Or all checkpoints are damaged.
            OSError: one cannot be read now, and may be intact.
        """
        self._position = self.restore_position(CheckpointFolder(folder))
        if self._position is None:
            return None
        self._nonfinite.rollbacks = self._position.rollbacks
        return self._position.run["step"]

    def restore_position(self, folder: CheckpointFolder) -> contents.Position | None:
        """The part of `restore` that is also a rollback's: a `Position`, or None where nothing is saved.

        Args:
            folder: a `CheckpointFolder`.
        """
        saved = folder.newest()
        if saved is None:
            return None
        with saved:
            contents.check_same(saved, self._identity)
            before, state = self._phase, saved.meta.get("phase")
            self._enter(self._phases.at(state, before))
            try:
                position = contents.load(saved, self.resumable())
            except BaseException:
                self._enter(before)
                raise
        self._phase.load_state(state)
        return position

    def resumable(self) -> Resumable:
        """What a checkpoint is made of: a `Resumable`."""
        return Resumable(
            model=self.model,
            extra_variables=self.extra_variables,
            optimizer=self.optimizer,
            metrics=self._shared.metrics,
            evaluations=self._phase.steps.evaluations,
            hooks=self._called[len(self._display) :],
            of=self._identity,
            current_run=self._run,
            rollbacks=self._nonfinite.rollbacks,
            phase=self._phase.state(),
            handed_on=self._phase.steps.handed_on,
        )

    def stop(self, reason: str) -> None:
        """Ask the current run, or the next one if there is none, to end after this block. For hooks and signals.

        Args:
            reason: a message, which becomes the result's message.
        """
        self._stop_reason = reason

    @filtered
    def evaluate(self, data: Data) -> dict[str, float]:
        """Loss and metrics in inference mode, as means over the samples.

        Args:
            data: as for `run`. A dataset is read to its end.

        Returns:
            dict of floats: "loss" and the metrics by name.
        """
        feed = self._checked_feed(data, once=True)
        arguments.check_finite_data("data to evaluate", feed)
        self._shared.test_metrics.reset()
        pace, rows, finished = Pace(_TEST_STEPS if self._shared.workers.count > 1 else None), [], False
        with self._shared.workers.watched():
            while not finished:
                wanted = smallest(feed.available(), pace.limit())
                block = self._phase.test(feed, wanted)
                pace.observe(len(block.rows), block.seconds)
                rows.append(block.rows)
                finished = feed.advance(len(block.rows), wanted)
        samples, *means = np.concatenate(rows).T
        named = zip(self._phase.steps.test_columns[1:], means, strict=True)
        return {name: float(np.average(values, weights=samples)) for name, values in named} | block.results

    @filtered
    def inspect(self, data: Data | None = None) -> Inspection:
        """Look at one step without taking it: weights, the optimizer's state, averages, counters and positions stay.

        It is what the next step does, on one batch; of a phase that is over, what its optimizer would do. Hooks are not
        called. What TensorFlow's stateful random operations
        (`tf.random.normal`) draw is drawn; the seeds of Keras layers stay.

        Args:
            data: as for `run`, of which the batch is taken that `run` would begin with, without a split or weights of
                classes; None for the data of the last run, with them, at the place where that stopped, also while it is
                going on.

        Returns:
            `Inspection`. A step that would fail is shown with its status.

        Raises:
            ValueError: there are no data yet, or a dataset has no batch left in its epoch.
        """
        self.optimizer.build(self._shared.trained())  # as in `run`
        if data is not None:
            self._inspected = self._with_feed(data)
            if self._position is not None and self._position.is_of(self._inspected.feed):
                self._position.find_in(self._inspected.feed)
        elif self._current is NO_DATA or (self._position is not None and self._run is None):
            raise ValueError("inspect needs data here: no run has begun since the loop was made or restored")
        with self._phase.steps.undisturbed():
            return self._phase.inspector((self._current if data is None else self._inspected).feed)

    def _aimed(self, feed, goal, validation_data):
        """The `Bookkeeping` of a run on a feed with a `Goal`, standing where it begins or continues."""
        goal = self._goal(goal, feed)
        joined = self._joins_epochs(feed, validation_data)
        run = Bookkeeping(feed, self._phase.step, self._phase.counted(), joined)
        self._check_epochs(validation_data, feed)
        arguments.tell_precision(self.optimizer, feed)
        if self._position is not None:
            self._position.continue_in(run)
        run.aim(goal)
        return run

    def _start(self, run, started):
        """Let all workers agree and hooks begin; each of them is in the list `started` from then on."""
        continued = self._position is not None
        self._phase.agreement.before(run, self._identity, self.hooks)
        for hook in self._called:
            started.append(hook)
            hook.on_start(self)
        self._nonfinite.begin(self, run.step, continued)
        self._position = None  # not before, because a hook may raise, and be asked again
        if self._phase.over and self._phase.last:
            run.status = Status.FINISHED

    def _one_block(self, run, validation_data):
        """One compiled call and everything between it and the next."""
        if self._phase.over:
            self._enter(self._phases.after(self._phase, run.step))
            self._nonfinite.enter(self, self.optimizer, run.step)
        block, wanted = self._train(run)
        lost = self._phase.nan_in_state()
        back_to = self._nonfinite.roll_back(self, Status.NONFINITE_STATE if lost else block.status)
        if back_to is not None:
            back_to.continue_in(run)
            self._agreed_stop(run)
            return
        epoch_over = self._account_for(run, block, wanted, lost)
        progress = run.progress(block.results)
        self._call_hooks(run, progress)
        if epoch_over:
            validation = None if run.status.failed else validation_data and self.evaluate(validation_data)
            for summary in run.finish_epochs(block.results, validation):
                for hook in self._called:
                    hook.on_epoch(progress, summary)
        stop = self._agreed_stop(run)
        if run.status == Status.RUNNING:
            ended = self._phase.over and self._phase.last
            run.status = Status.STOPPED if stop else Status.FINISHED if ended else run.status_by_goal()
        for hook in self._called:
            hook.on_rest(progress, run.status)

    def _train(self, run):
        """(the `Block` of the next steps, how many it was to have)."""
        if run.feed.index == 0:
            self._shared.metrics.reset()
        limits = self._phase.pace.limit(), *self._phase.step_limits(), *self._steps_to_hooks(run.step)
        wanted = smallest(run.steps_available(), *limits)
        self._phase.steps.before_block(run.feed)
        with self._phase.steps.undisturbed():
            block = self._phase.train(run.feed, wanted)
        self._phase.pace.observe(len(block.rows), block.seconds)
        return block, wanted

    def _account_for(self, run, block, wanted, lost):
        """Enter a block into the run; `lost` names what of the optimizer's state is NaN. Whether the epoch is over."""
        block, dropped = (block, 0) if lost else self._nonfinite.skip(block, run.step)
        if block.status in NONFINITE:
            self._where = lost or self._phase.steps.first_nonfinite(run.feed.again(len(block.rows) - 1))
        taken = len(block.rows) > 0 and not block.status.failed and not lost
        measured = self._measured.after(run.step + len(block.rows), self.model, taken)
        columns, position = self._phase.steps.columns, self._phase.position
        epoch_over = run.take(block, wanted, columns, dropped, measured, **position)
        run.check_counter(self._phase.step)
        if lost and not run.status.failed:
            run.status, self._where = Status.NONFINITE_STATE, lost
        self._phase.observe(run.logs, run.status)
        if self._phase.over and not self._phase.last and not run.status.failed:
            run.status = Status.RUNNING  # of the run; the optimizer may have ended
        return epoch_over

    def _joins_epochs(self, feed, validation_data):
        """Whether blocks continue over the ends of epochs: each is one step on one batch, and no hook looks between."""
        if not feed.fixed or feed.steps_per_epoch != 1 or self._shared.metrics or validation_data is not None:
            return False
        listening = [hook for hook in self.hooks if getattr(hook.on_epoch, "__func__", None) is not Hook.on_epoch]
        return all(hook.only_records for hook in listening)

    def _enter(self, phase):
        """Continue in a phase; what it has compiled is new where it is another one."""
        if phase is not self._phase:
            self._traces_before += self._phase.train.traces
            self._phase = phase
            if self._current.feed is not None:
                phase.steps.learn_terms(self._current.feed)
                arguments.tell_precision(self.optimizer, self._current.feed)

    def _check_epochs(self, validation_data, feed):
        """Raise now for what would show only after the first epoch, or never."""
        self._measured.check(self._phase.steps.columns)  # which have the terms of a loss, now that there are data
        if validation_data is not None:
            arguments.check_epochs_end(feed)
            arguments.check_finite_data("validation_data", self._checked_feed(validation_data, once=True))
        terms = self._phase.steps.test_columns[2:]
        known = summary_names(self._shared.metrics, validation_data is not None, self.hooks, terms)
        arguments.check_monitors(self.hooks, known)
        self._phases.check_monitors(self._phase)

    def _call_hooks(self, run, progress):
        for hook in self._called:
            hook.on_block(progress)
            if (
                hook.every_steps
                and len(progress.logs["step"])
                and not run.status.failed
                and run.step % hook.every_steps == 0
            ):
                hook.on_step(progress)

    def _agreed_stop(self, run):
        """The message of the worker that is to stop, on all workers, or None."""
        reason = self._phase.agreement.between_blocks(run.step, self._phase.pace, self._stop_reason)
        self._stop_reason = reason or self._stop_reason
        return reason

    def _steps_to_hooks(self, step):
        return [hook.every_steps - step % hook.every_steps for hook in self.hooks if hook.every_steps]

    def _goal(self, goal, feed):
        """The goal as given; where all phases have a number of steps and there is none, their last step."""
        left = self._phases.steps_left(self._phase)
        if goal == Goal() and left is not None:
            return Goal(until_step=self._phase.step + left)
        goal.check_ends(feed.infinite)
        return goal

    def _with_feed(self, data, split=None, class_weight=None):
        """Data with the feed they had in the last run or inspection when they are the same objects."""
        how = (split, class_weight)
        known = [pair for pair in (self._current, self._inspected) if pair.is_of(data, how)]
        return known[0] if known else self._fed(data, *how)

    def _fed(self, data, split, class_weight):
        """Data with a feed of their own, and what is split off to validate on."""
        trained_on, validation = as_in_fit(data, split, class_weight, self.batch_loss)
        feed = self._checked_feed(trained_on, static=self._shared.jit_compile)
        return WithFeed(data, feed, (split, class_weight), validation)

    def _checked_feed(self, data, static=False, once=False):
        feed = as_feed(data, static, once)
        arguments.check_data(feed, self.batch_loss, self.replicas)
        self._phase.steps.learn_terms(feed)
        return feed
