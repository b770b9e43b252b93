"""What a loop does about a step that met a NaN or an infinity, and how it finds out where that came from.

    stop        the run ends with a `TrainingError`, which for data in memory says where the first such number arose
    skip        the step is left out, and the run continues with the next batch
    rollback    the run goes back to its last checkpoint and takes shorter steps from there

The weights are never touched by such a step. Both policies are limited (100 skips in a row, 5 rollbacks), so that
a persistent failure is reported.

Where the first such number arose (the batch, a layer, the loss, or the gradient of a variable): a failed step leaves
the model as it was before it, dropout seeds included. So its batch can be run once more, outside of compiled code, with
a look at what every layer returns. Nothing lasts of that either.

NaN in the state (`NanInState`): a step whose f, g or x is not finite is never taken. But an optimizer may put NaN into
a vector that it uses only later, and then every later step fails, and every checkpoint is poisoned. It is looked for
once per block of steps, because a look costs a pass over the state. Scalars may be NaN on purpose, as "not known yet",
and a `SharedMatrix` rejects a change that is not finite.
"""

import contextlib
import functools
import logging
from typing import Protocol

import tensorflow as tf

from trainloop import checks
from trainloop.checkpoints.contents import Position
from trainloop.checkpoints.files import CheckpointFolder, DamagedCheckpointError
from trainloop.data.batches import between
from trainloop.hooks.base import Hook, LoopProtocol
from trainloop.hooks.save_checkpoint import SaveCheckpoint
from trainloop.objectives import losses
from trainloop.optimizer import state as states
from trainloop.optimizer import validation
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.status import Status

_LOG = logging.getLogger("trainloop")

POLICIES = ("stop", "skip", "rollback")
NONFINITE = (Status.NONFINITE_LOSS, Status.NONFINITE_GRADIENT, Status.NONFINITE_STEP)

# Steps in a row that may be skipped.
MOST_SKIPS = 100

# How often a run may go back in all, and by how much shorter its steps then are.
MOST_ROLLBACKS, FACTOR = 5, 0.5


def check_policy(policy, optimizer, shrinkable):
    """The policy, if it is one of `POLICIES` and possible for an optimizer.

    Args:
        policy: see above.
        optimizer: built or not.
        shrinkable: names of what in it or its state makes its steps shorter, see `shrink_steps`.

    Raises:
        ValueError: another policy, or "rollback" where there is nothing of the kind.
    """
    if checks.choice("on_nonfinite", policy, POLICIES) == "rollback" and not shrinkable:
        raise ValueError(
            f"{type(optimizer).__name__} has no learning rate, radius or damping that would make its steps shorter "
            "after a rollback; use on_nonfinite='skip' or 'stop'"
        )
    return policy


class LoopWithCheckpoints(LoopProtocol, Protocol):
    """What a rollback needs of a `TrainLoop`, beyond what hooks see."""

    hooks: tuple[Hook, ...]

    def restore_position(self, folder: CheckpointFolder) -> Position | None:
        """Put the newest checkpoint of a folder back: its `Position`, or None where there is none."""


class OnNonfinite:
    """The policy of one loop.

    Args:
        policy: see above.
        optimizer: built; for "rollback" it must have something that makes its steps shorter.

    Raises:
        ValueError: another policy, or an optimizer that cannot take shorter steps.
    """

    def __init__(self, policy, optimizer):
        self.policy = check_policy(policy, optimizer, optimizer.shrink_steps(1))
        self.rollbacks, self._skips_in_a_row = 0, 0

    def begin(self, loop: LoopWithCheckpoints, step: int, continued: bool) -> None:
        """Before the first step of a run: see to it that there is a checkpoint to go back to, and that it is its own.

        Args:
            loop: that of the run.
            step: steps taken before.
            continued: whether the run continues that of a checkpoint.

        Raises:
            ValueError: nothing writes checkpoints.
        """
        if self.policy == "rollback":
            saver = _saver_of(loop.hooks)
            if saver is None:
                raise ValueError("on_nonfinite='rollback' needs checkpoints to go back to; add the hook SaveCheckpoint")
            if not continued:
                self.rollbacks = 0
                saver.save(step)  # by all workers: what is sharded over them has to be gathered

    def enter(self, loop: LoopWithCheckpoints, optimizer: WholeVectorOptimizer, step: int) -> None:
        """Before the first step of a later phase: a rollback goes back to its beginning, not into the one before.

        Args:
            loop: that of the run.
            optimizer: of the phase.
            step: steps taken before.
        """
        check_policy(self.policy, optimizer, optimizer.shrink_steps(1))
        if self.policy == "rollback":
            _saver_of(loop.hooks).save(step)

    def skip(self, block, step):
        """What to take of a block: (the block, how many batches at its end are left out).

        Args:
            block: a `Block`.
            step: steps taken before it.
        """
        if block.status not in NONFINITE:
            self._skips_in_a_row = 0
            return block, 0
        self._skips_in_a_row = 1 if len(block.rows) > 1 else self._skips_in_a_row + 1
        if self.policy != "skip" or self._skips_in_a_row > MOST_SKIPS:
            return block, 0
        _LOG.warning("step %d was left out, because %s", step + len(block.rows), block.status.message)
        return block._replace(status=Status.RUNNING, rows=block.rows[:-1]), 1

    def roll_back(self, loop: LoopWithCheckpoints, status: Status) -> Position | None:
        """Restore the last checkpoint and shorten the steps, where that is the policy.

        Args:
            loop: that of the run.
            status: of the block that has just run.

        Returns:
            `Position` to continue from, or None.
        """
        if (
            self.policy != "rollback"
            or status not in (*NONFINITE, Status.NONFINITE_STATE)
            or self.rollbacks >= MOST_ROLLBACKS
        ):
            return None
        times = self.rollbacks + 1
        try:
            position = loop.restore_position(_saver_of(loop.hooks).folder)
        except DamagedCheckpointError as error:
            _LOG.warning("no way back: %s", error)
            position = None
        if position is None:
            return None
        # The checkpoint has the steps that were right when it was written, after so many rollbacks.
        changed = loop.optimizer.shrink_steps(FACTOR ** (times - position.rollbacks))
        self.rollbacks = times
        _saver_of(loop.hooks).went_back_to(position.run["step"])
        _LOG.warning(
            "back to step %d with %s changed by the factor %g, because %s",
            position.run["step"], " and ".join(changed), FACTOR, status.message,
        )  # fmt: skip
        return position


def _saver_of(hooks):
    return next((hook for hook in hooks if isinstance(hook, SaveCheckpoint)), None)


class NanInState:
    """Looks into the state of an optimizer.

    Args:
        optimizer: built.
    """

    def __init__(self, optimizer):
        # A partial, because TensorFlow takes the same method of many loops for one that is traced again and again.
        self._count = tf.function(functools.partial(_counts, optimizer), autograph=False)

    def __call__(self):
        """A message that names what has NaN, or None."""
        found = {path: (int(count), size) for path, (count, size) in self._count().items()}
        named = [f"{path} ({count:,} of {int(size):,} numbers)" for path, (count, size) in found.items() if count]
        return f"the optimizer's state has NaN in {', '.join(named)}" if named else None


def _counts(optimizer):
    """(how many numbers are NaN [], how many there are []) by path."""
    return {
        path: (tf.math.count_nonzero(tf.math.is_nan(leaf)), tf.size(leaf))
        for path, leaf in states.flatten(optimizer.state).items()
        if tf.is_tensor(leaf) and leaf.dtype.is_floating and leaf.shape.rank != 0
    }


def first_nonfinite(model, loss, batch, vector, microbatch_size=None):
    """A message that says where the first NaN or infinity arises, or None where all is finite.

    What the passes write stays: averages, seeds and counters are the caller's to put back.

    Args:
        model: as it was before the step that failed.
        loss: a `BatchLoss`.
        batch: of that step.
        vector: the `VariableVector` of the model.
        microbatch_size: at most so many samples are run at a time; None for all.
    """
    samples = int(losses.samples(batch))
    for first in range(0, samples, microbatch_size or samples):
        last = min(first + (microbatch_size or samples), samples)
        part = between(batch, first, last)
        found = _in_batch(part) or _in_passes(model, loss, part, vector)
        if found:
            return found
    return None


def _in_batch(batch):
    if all(map(_is_finite, tf.nest.flatten(batch))):
        return None
    return "the batch itself has a number that is not finite"


def _in_passes(model, loss, batch, vector):
    found = []
    with tf.GradientTape() as tape:
        with _watch(model, found):
            compared, own, _ = loss.terms(model, batch, training=True)
        f = compared + own
    if found:
        return f"the first layer whose output is not finite is {found[0]}"
    if not _is_finite(compared):
        return "the outputs of all layers are finite, so it arises in the loss function"
    if not _is_finite(own):
        return "it arises in the losses that layers add themselves"
    gradients = tape.gradient(f, vector.variables)
    # A gradient comes into being from the loss back to the first layer.
    for name, gradient in reversed(list(zip(vector.layout.names, gradients, strict=True))):
        if gradient is not None and not _is_finite(tf.convert_to_tensor(gradient)):
            return f"going back from the loss, the first gradient that is not finite is that of {name}"
    return None


@contextlib.contextmanager
def _watch(model, found):
    """Inside, names of layers that return something that is not finite are appended to `found`, inner ones first."""
    layers = validation.layers_of(model)
    for layer in layers:
        layer.call = _watched(layer, layer.call, found)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call  # the method of the class shows again


def _watched(layer, call, found):
    def watched(*args, **kwargs):
        outputs = call(*args, **kwargs)
        if not all(map(_is_finite, tf.nest.flatten(outputs))):
            found.append(f"{layer.path or layer.name} ({type(layer).__name__})")  # some have no path
        return outputs

    return watched


def _is_finite(tensor):
    if isinstance(tensor, tf.SparseTensor):
        tensor = tensor.values
    elif isinstance(tensor, tf.RaggedTensor):
        tensor = tensor.flat_values
    if not tf.is_tensor(tensor) or not tensor.dtype.is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))
