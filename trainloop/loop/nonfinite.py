"""What a loop does about a step that met a NaN or an infinity.

    stop        the run ends with a `TrainingError`, which for data in memory says where the first such number arose
    skip        the step is left out, and the run goes on with the next batch
    rollback    the run goes back to its last checkpoint and takes shorter steps from there

The weights are never touched by such a step. Both ways on are bounded: where every batch fails, or steps that are 32
times shorter fail too, going on would only hide it.
"""

import logging

from trainloop import checks
from trainloop.saving import SaveCheckpoint
from trainloop.status import Status

_LOG = logging.getLogger("trainloop")

WORDS = ("stop", "skip", "rollback")
NONFINITE = (Status.NONFINITE_LOSS, Status.NONFINITE_GRADIENT, Status.NONFINITE_STEP)

# Steps in a row that may be skipped.
MOST_SKIPS = 100

# How often a run may go back in all, and by how much shorter its steps then are.
MOST_ROLLBACKS, FACTOR = 5, 0.5


def check_policy(word, optimizer, shrinkable):
    """The word, if it is one of `WORDS` and possible for a method.

    Args:
        word: see above.
        optimizer: built or not.
        shrinkable: names of what in it or its state makes its steps shorter, see `shrink_steps`.

    Raises:
        ValueError: another word, or "rollback" where there is nothing of the kind.
    """
    if checks.choice("on_nonfinite", word, WORDS) == "rollback" and not shrinkable:
        raise ValueError(
            f"{type(optimizer).__name__} has no learning rate, radius or damping that would make its steps shorter "
            "after a rollback; use on_nonfinite='skip' or 'stop'"
        )
    return word


class OnNonfinite:
    """The policy of one loop.

    Args:
        word: see above.
        optimizer: built; for "rollback" it must have something that makes its steps shorter.

    Raises:
        ValueError: another word, or an optimizer that cannot take shorter steps.
    """

    def __init__(self, word, optimizer):
        self.word = check_policy(word, optimizer, optimizer.shrink_steps(1))
        self.rollbacks, self._skips_in_a_row = 0, 0

    def begin(self, loop, step, continued):
        """Before the first step of a run: see to it that there is a checkpoint to go back to, and that it is its own.

        Args:
            loop: a `TrainLoop`.
            step: steps taken before.
            continued: whether the run continues that of a checkpoint.

        Raises:
            ValueError: nothing writes checkpoints.
        """
        if self.word == "rollback":
            saver = _saver_of(loop.hooks)
            if saver is None:
                raise ValueError("on_nonfinite='rollback' needs checkpoints to go back to; add the hook SaveCheckpoint")
            if not continued:
                self.rollbacks = 0
                saver.save(step)  # by all workers: what is spread over them has to be gathered

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
        if self.word != "skip" or self._skips_in_a_row > MOST_SKIPS:
            return block, 0
        _LOG.warning("step %d was left out, because %s", step + len(block.rows), block.status.sentence)
        return block._replace(status=Status.RUNNING, rows=block.rows[:-1]), 1

    def roll_back(self, loop, status):
        """Restore the last checkpoint and shorten the steps, where that is the policy.

        Args:
            loop: a `TrainLoop`.
            status: of the block that has just run.

        Returns:
            `checkpoint.Position` to continue from, or None.
        """
        if (
            self.word != "rollback"
            or status not in (*NONFINITE, Status.NONFINITE_STATE)
            or self.rollbacks >= MOST_ROLLBACKS
        ):
            return None
        times = self.rollbacks + 1
        position = loop.restore_position(_saver_of(loop.hooks).folder)
        if position is None:
            return None
        # The checkpoint has the steps that were right when it was written, after so many rollbacks.
        changed = loop.optimizer.shrink_steps(FACTOR ** (times - position.rollbacks))
        self.rollbacks = times
        _saver_of(loop.hooks).went_back_to(position.run["step"])
        _LOG.warning(
            "back to step %d with %s changed by the factor %g, because %s",
            position.run["step"], " and ".join(changed), FACTOR, status.sentence,
        )  # fmt: skip
        return position


def _saver_of(hooks):
    return next((hook for hook in hooks if isinstance(hook, SaveCheckpoint)), None)
