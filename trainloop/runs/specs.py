"""Specifications: an optimizer with its settings as one argument of the command line, and phases of a run.

adam                                        an optimizer with its defaults
testgd:rad=2000,storage=dense               with arguments of its constructor
lbfgs:m=20,--batch-size=full,--epochs=100   and with options of `trainloop train`, which begin with two dashes
my_method.py:Mine:rad=3                     a class in a file

After --then a specification is a phase, whose only option is --steps:

    --optimizer adam -o learning_rate=0.005 --steps 5000 --then ssbroyden:--steps=2000

Nothing here imports TensorFlow, because the command line is read before.
"""

import dataclasses
import re

from trainloop.checks import printable

# A comma separates settings only where another one follows: (0.9, 0.999) is a value.
_SETTING = r"(?:--[a-z][a-z-]*(?:=|,|$)|[A-Za-z_][\w.]*=)"
_BETWEEN = re.compile(rf",(?={_SETTING})")
_FIRST = re.compile(rf":(?={_SETTING})")


@dataclasses.dataclass(frozen=True)
class PhaseSpec:
    """A phase as it was asked for.

    Attributes:
        optimizer: what `plugins.find_optimizer` takes.
        options: tuple of "key=value", arguments of its constructor.
        steps: how many it has; None for no limit.
    """

    optimizer: str
    options: tuple = ()
    steps: int | None = None


def check_text(spec):
    """Raise ValueError unless a spec is text without control characters."""
    if not isinstance(spec, str) or printable(spec) != spec:
        raise ValueError(f"{spec!r} is no optimizer: it is no text, or has control characters; write it anew")


def split(spec):
    """The parts of a spec: (optimizer, options of its constructor, options of `trainloop train`), the latter tuples.

    Raises:
        ValueError: see `check_text`.
    """
    check_text(spec)
    optimizer, *rest = _FIRST.split(spec, maxsplit=1)
    settings = _BETWEEN.split(rest[0]) if rest else []
    own = tuple(setting for setting in settings if setting.startswith("--"))
    return optimizer, tuple(setting for setting in settings if not setting.startswith("--")), own


def phase(spec):
    """The `PhaseSpec` of a spec after --then.

    Raises:
        ValueError: it has another option than --steps, that one twice, or not a positive number of them.
    """
    optimizer, options, settings = split(spec)
    for setting in settings:
        if setting.partition("=")[0] != "--steps":
            raise ValueError(
                f"{spec}: the only option of a phase is --steps=N, received {setting}; others are those of the whole "
                "run, so give them outside of --then"
            )
    if len(settings) > 1:
        raise ValueError(f"{spec}: --steps is given twice; leave one out")
    return PhaseSpec(optimizer, options, steps(settings[0].partition("=")[2]) if settings else None)


def steps(text):
    """A number of steps.

    Raises:
        ValueError: it is not a positive integer.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--steps must be a positive integer, received {text!r}; write for example --steps=2000")
    return int(text)


def phases(settings):
    """All phases that the settings of a run ask for; one where there is no --then.

    Args:
        settings: dict with "optimizer", "options" and "steps", and "then" where there are several.

    Returns:
        list of `PhaseSpec`. The steps of a single one are the goal of the run.

    Raises:
        ValueError: a phase that is followed by another one has no number of steps; or see `phase`.
    """
    then = settings.get("then") or ()
    found = [PhaseSpec(settings["optimizer"], tuple(settings["options"]), settings.get("steps")), *map(phase, then)]
    for i, one in enumerate(found[:-1]):
        if one.steps is None:
            advice = "--steps N before --then" if i == 0 else f"{with_steps(then[i - 1], 'N')}"
            raise ValueError(
                f"phase {i}, {one.optimizer}, needs a number of steps, because {found[i + 1].optimizer} follows; give "
                f"{advice}"
            )
    return found


def without_goal(then):
    """`PhaseSpec` of specs after --then, without the steps of the last one, which are a goal: they may change.

    Args:
        then: list of them; None or empty for none.

    Raises:
        ValueError: see `phase`.
    """
    found = list(map(phase, then or ()))
    return [*found[:-1], *(dataclasses.replace(last, steps=None) for last in found[-1:])]


def with_last_steps(then, count):
    """Specs after --then, with so many steps for the last one where it has no number of its own."""
    *before, last = then
    return (*before, last if phase(last).steps else with_steps(last, count))


def with_rest(then, asked, total):
    """Specs after --then, where the last one has what the phases before it leave of the steps of a run.

    Args:
        then: the specs.
        asked: list of `PhaseSpec`: these, and the first one.
        total: steps of the run; None where it has no such goal, and the specs are as given.

    Raises:
        ValueError: nothing is left.
    """
    before = sum(one.steps for one in asked[:-1])
    if total is None or asked[-1].steps is not None:
        return then
    if total <= before:
        raise ValueError(
            f"a run has {total} steps, and {asked[-1].optimizer} would begin after {before}; give more to the run, or "
            "fewer to the phases before it"
        )
    return with_last_steps(then, total - before)


def with_steps(spec, count):
    """A spec that has no --steps, with so many of them."""
    _, options, _ = split(spec)
    return f"{spec}{',' if options else ':'}--steps={count}"


def values(asked):
    """Everything in phases that may stand for a user's code: names of optimizers, and arguments of constructors.

    Args:
        asked: list of `PhaseSpec`.
    """
    return [text for one in asked for text in (one.optimizer, *(option.partition("=")[2] for option in one.options))]


def names(asked):
    """`adam, then ssbroyden`.

    Args:
        asked: list of `PhaseSpec`.
    """
    return ", then ".join(one.optimizer for one in asked)
