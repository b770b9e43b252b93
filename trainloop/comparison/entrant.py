"""One of the things that are compared: a method with its settings, as a word of the command line.

adam                                        a method with its defaults
testgd:rad=2000,storage=dense               with arguments of its constructor
lbfgs:m=20,--batch-size=full,--epochs=100   and with options of `trainloop train`, which begin with two dashes
my_method.py:Mine:rad=3                     a class in a file
"""

import dataclasses
import re

from trainloop.checks import printable
from trainloop.runs import plugins

# A comma separates settings only where another one follows: (0.9, 0.999) is a value.
_SETTING = r"(?:--[a-z][a-z-]*(?:=|,|$)|[A-Za-z_][\w.]*=)"
_BETWEEN = re.compile(rf",(?={_SETTING})")
_FIRST = re.compile(rf":(?={_SETTING})")

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
    """A method and its settings.

    Attributes:
        label: as the user wrote it.
        optimizer: what `plugins.find_optimizer` takes.
        options: tuple of "key=value", arguments of its constructor.
        settings: tuple of options of `trainloop train`, such as "--batch-size=full".
    """

    label: str
    optimizer: str
    options: tuple = ()
    settings: tuple = ()

    @property
    def folder(self):
        """The label as the name of a folder."""
        return re.sub(r"[^\w.=+-]+", "_", self.label)

    @property
    def arguments(self):
        """All of it as arguments of `trainloop train`."""
        return [
            "--optimizer",
            self.optimizer,
            *(word for option in self.options for word in ("-o", option)),
            *self.settings,
        ]


def parse(label):
    """The `Entrant` of a word.

    Raises:
        ValueError: it is not of the form above, or sets what is common to all.
    """
    if not isinstance(label, str) or printable(label) != label:
        raise ValueError(f"{label!r} is no method: it is no text, or has control characters; write it anew")
    optimizer, *rest = _FIRST.split(label, maxsplit=1)
    settings = _BETWEEN.split(rest[0]) if rest else []
    own = tuple(setting for setting in settings if setting.startswith("--"))
    for setting in own:
        name = setting.partition("=")[0]
        if name in _NOT_ITS_OWN:
            raise ValueError(f"{label}: {name} is common to all methods of a comparison, or set by it; leave it out")
    return Entrant(label, optimizer, tuple(setting for setting in settings if not setting.startswith("--")), own)


def parse_all(labels):
    """The `Entrant`s of several words, each of which can be made.

    Raises:
        ValueError: none, one given twice, an unknown method, or arguments it does not take.
    """
    if not labels:
        raise ValueError("name at least one method, such as testgd:rad=2000 or adam; trainloop train --list shows all")
    entrants = [parse(label) for label in labels]
    folders = [entrant.folder.lower() for entrant in entrants]
    for i, entrant in enumerate(entrants):
        if folders[i] in folders[:i]:
            raise ValueError(f"{entrant.label} is given twice; one of them, or other settings, must go")
    for entrant in entrants:
        make_optimizer(entrant)
    return entrants


def make_optimizer(entrant):
    """A new optimizer of this method with these settings."""
    try:
        return plugins.make_optimizer(plugins.find_optimizer(entrant.optimizer), plugins.parse_options(entrant.options))
    except (ValueError, OSError) as error:
        raise ValueError(f"{entrant.label}: {error}") from error
