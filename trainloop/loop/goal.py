"""Where a run ends, as its caller says it: so many steps or epochs further, or in total."""

import dataclasses

from trainloop import checks


@dataclasses.dataclass(frozen=True)
class Goal:
    """What `TrainLoop.run` is asked for; whatever is reached first ends the run.

    Attributes:
        epochs, steps: to do from where the loop stands.
        until_epoch, until_step: in total, with those of earlier runs.

    Raises:
        ValueError: one of them is not a positive integer.
    """

    epochs: int | None = None
    steps: int | None = None
    until_epoch: int | None = None
    until_step: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                checks.integer(field.name, value, at_least=1)

    def check_ends(self, infinite):
        """Raise where a run would have no end.

        Args:
            infinite: whether the data have no epochs.

        Raises:
            ValueError: no goal, or only epochs where no epoch ends.
        """
        if self == Goal():
            raise ValueError("run needs epochs=, steps=, until_epoch= or until_step=; received none of them")
        if infinite and self.steps is None and self.until_step is None:
            raise ValueError(
                "the data are infinite, so an epoch has no end; give steps=..., or bound a dataset with take()"
            )

    def last_step(self, step):
        """The number of the last step of a run that begins after `step`, None where only epochs end it."""
        return smallest(None if self.steps is None else step + self.steps, self.until_step)

    def last_epoch(self, epoch):
        """The number of the last epoch of a run that begins after `epoch`, None where only steps end it."""
        return smallest(None if self.epochs is None else epoch + self.epochs, self.until_epoch)


def smallest(*limits):
    """The smallest of the limits that are known, None when none is."""
    return min((limit for limit in limits if limit is not None), default=None)
