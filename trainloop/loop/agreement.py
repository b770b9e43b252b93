"""What the workers of a run say to each other: before it, and once per block.

Each has a clock, signals and files of its own. Whatever follows from these has to be the same decision everywhere, or
one would wait in an all-reduce for another that is somewhere else.
"""

import zlib

from trainloop.distributed.workers import WorkersError
from trainloop.optimizer import state as states

# A message is cut to this length: everything has to fit into one exchange.
_LONGEST = 500


class Agreement:
    """Between the workers of one loop.

    Args:
        workers: `Workers`.
        optimizer: built.
        vector: the `VariableVector` of the weights.
    """

    def __init__(self, workers, optimizer, vector):
        self._workers, self._optimizer, self._vector = workers, optimizer, vector

    def before(self, run, identity, hooks):
        """Make sure that all are about to do the same.

        Args:
            run: a `Bookkeeping`.
            identity: of model, optimizer and metrics, see `checkpoints.contents.identity`.
            hooks: of the loop.

        Raises:
            WorkersError: on every worker, with what differs.
        """
        if self._workers.count == 1:
            return
        described = {**identity, "data": run.feed.description()}
        facts = {f"{kind} {name}": value for kind, about in described.items() for name, value in about.items()}
        stops = sorted({hook.every_steps for hook in hooks if hook.every_steps})
        goals = {
            "step": run.step,
            "last step": run.last_step,
            "last epoch": run.last_epoch,
            "every_steps of hooks": stops,
        }
        self._workers.compare("runs", facts | goals | self._sums())

    def between_blocks(self, step, pace, stop_reason):
        """The chief's clock says how long the next block is, and who is asked to stop stops all.

        Args:
            step: steps taken.
            pace: a `Pace`.
            stop_reason: a message, or None.

        Returns:
            The message of the first worker that has one, or None.

        Raises:
            WorkersError: weights or state are not the same bits everywhere.
        """
        if self._workers.count == 1:
            return stop_reason
        stop = stop_reason and stop_reason[:_LONGEST]
        said = self._workers.exchange({"limit": pace.limit(), "stop": stop, "sums": self._sums()})
        for i, other in enumerate(said):
            names = [name for name, value in other["sums"].items() if value != said[0]["sums"][name]]
            if names:
                raise WorkersError(
                    f"after step {step} workers 0 and {i} differ in {' and '.join(names)}, which must be the same bits "
                    "everywhere; an optimizer may draw only numbers that its state determines, and a hook may change "
                    "nothing on one worker alone"
                )
        pace.follow(said[0]["limit"])
        return next((other["stop"] for other in said if other["stop"]), None)

    def _sums(self):
        """Numbers that stand for the weights and for the scalars of the state."""
        scalars = states.scalars(states.flatten(self._optimizer.state)).values()
        state = zlib.crc32(b"".join(scalar.numpy().tobytes() for scalar in scalars))
        return {"the weights": zlib.crc32(self._vector.read().numpy()), "the optimizer's state": state}
