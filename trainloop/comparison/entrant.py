"""One of the things that are compared: an optimizer with its settings, as a specification on the command line.

adam                                        an optimizer with its defaults
testgd:rad=2000,storage=dense               with arguments of its constructor
lbfgs:m=20,--batch-size=full,--epochs=100   and with options of `trainloop train`, which begin with two dashes
my_method.py:Mine:rad=3                     a class in a file
adam:--steps=300,--then=lbfgs:m=5           phases; what stands behind --then= is the specification of the next one
"""

import dataclasses
import functools
import re

from trainloop.runs import phases, specs

_BEFORE_THEN = re.compile("[:,]--then=")

# What all entrants have in common, or what the comparison itself decides.
_NOT_ITS_OWN = {"--dataset", "--model", "--loss", "--residuals", "--loss-weight", "--seed", "--run-dir"}
_NOT_ITS_OWN |= {
    "--resume",
    "--overwrite",
    "--optimizer",
    "--option",
    "--config",
    "--dry-run",
    "--list",
    "--quiet",
    "--help",
    "--keep",
    "--keep-best",
}


@dataclasses.dataclass(frozen=True)
class Entrant:
    """An optimizer and its settings.

    Attributes:
        label: as the user wrote it.
        optimizer: what `plugins.find_optimizer` takes.
        options: tuple of "key=value", arguments of its constructor.
        settings: tuple of options of `trainloop train`, such as "--batch-size=full".
        then: tuple of the specifications of the phases that follow.
    """

    label: str
    optimizer: str
    options: tuple = ()
    settings: tuple = ()
    then: tuple = ()

    @property
    def folder(self):
        """The label as the name of a folder."""
        return re.sub(r"[^\w.=+-]+", "_", self.label)

    @functools.cached_property
    def phases(self):
        """`PhaseSpec` of all its phases; one where nothing follows.

        Raises:
            ValueError: see `specs.phases`.
        """
        own = dict(setting.partition("=")[::2] for setting in self.settings)
        steps = specs.steps(own["--steps"]) if self.then and "--steps" in own else None
        return specs.phases({"optimizer": self.optimizer, "options": self.options, "steps": steps, "then": self.then})

    def arguments(self, common):
        """Of `trainloop train`, beside options that all optimizers of a comparison have, but for those of its own.

        Steps that are common are those of a whole run: the last phase has what is left of them.

        Args:
            common: arguments such as "--steps=500".

        Raises:
            ValueError: nothing is left.
        """
        own = {setting.partition("=")[0] for setting in self.settings}
        then = self.then and specs.with_rest(self.then, self.phases, _steps_among(common))
        return [
            *(argument for argument in common if argument.partition("=")[0] not in own),
            *("--optimizer", self.optimizer),
            *(argument for option in self.options for argument in ("-o", option)),
            *self.settings,
            *(argument for phase in then for argument in ("--then", phase)),
        ]


def parse(label):
    """The `Entrant` of a specification.

    Raises:
        ValueError: it is not of the form above, or sets what is common to all.
    """
    specs.check_text(label)
    first, *then = _BEFORE_THEN.split(label)
    optimizer, options, settings = specs.split(first)
    for setting in settings:
        name = setting.partition("=")[0]
        if name in _NOT_ITS_OWN:
            raise ValueError(f"{label}: {name} is common to all optimizers of a comparison, or set by it; leave it out")
    return Entrant(label, optimizer, options, settings, tuple(then))


def _steps_among(common):
    """The number of steps in arguments such as "--steps=500"; None where there is none."""
    return next((int(argument.partition("=")[2]) for argument in common if argument.startswith("--steps=")), None)


def parse_all(labels):
    """The `Entrant`s of several specifications, each of which can be made.

    Raises:
        ValueError: none, one given twice, an unknown optimizer, or arguments it does not take.
    """
    if not labels:
        raise ValueError(
            "name at least one optimizer, such as testgd:rad=2000 or adam; trainloop train --list shows all"
        )
    entrants = [parse(label) for label in labels]
    folders = [entrant.folder.lower() for entrant in entrants]
    for i, entrant in enumerate(entrants):
        if folders[i] in folders[:i]:
            raise ValueError(f"{entrant.label} is given twice; one of them, or other settings, must go")
    for entrant in entrants:
        make_optimizer(entrant)
    return entrants


def make_optimizer(entrant):
    """A new optimizer with these settings, or a list of `Phase`s."""
    try:
        return phases.in_phases(entrant.phases, phases.optimizers(entrant.phases))
    except (ValueError, OSError) as error:
        raise ValueError(f"{entrant.label}: {error}") from error
