"""From the specifications of a run's phases to what `TrainLoop` and `minimize` take as optimizer."""

from trainloop.loop.phases import Phase
from trainloop.runs import plugins


def optimizers(asked):
    """An optimizer for each phase, not built.

    Args:
        asked: list of `PhaseSpec`.

    Raises:
        FileNotFoundError, ValueError: see `plugins.find_optimizer` and `plugins.make_optimizer`.
    """
    classes = [plugins.find_optimizer(one.optimizer) for one in asked]
    options = [plugins.parse_options(one.options) for one in asked]
    return list(map(plugins.make_optimizer, classes, options))


def in_phases(asked, made):
    """The optimizer of a single phase, whose steps are those of the run, or a list of `Phase`s.

    Args:
        asked: list of `PhaseSpec`.
        made: the optimizers, in the same order.
    """
    if len(made) == 1:
        return made[0]
    return [Phase(optimizer, one.steps) for one, optimizer in zip(asked, made, strict=True)]


def check_epochs(asked, epochs, steps_per_epoch):
    """Reject epochs that are over before the last phase begins.

    Args:
        asked: list of `PhaseSpec`.
        epochs: of the run; None for no such goal.
        steps_per_epoch: of the data.

    Raises:
        ValueError: names both numbers.
    """
    before = sum(one.steps for one in asked[:-1])
    if epochs is not None and epochs * steps_per_epoch <= before:
        raise ValueError(
            f"--epochs {epochs} are {epochs * steps_per_epoch} steps, and {asked[-1].optimizer} would begin after "
            f"{before}; give more epochs, or fewer steps to the phases before it"
        )
