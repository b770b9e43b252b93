"""What a config.json holds besides versions, entry by entry: settings of the command line, and facts that follow.

Whatever depends on which setting it is reads this table. Nothing here imports TensorFlow, because the command line is
read before.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from trainloop.runs import specs


def _was(name: str, there: Any, here: Any) -> str:
    return f"{name} was {there!r}, here it is {here!r}"


def _edited(name: str, there: Any, here: Any) -> str:
    if not isinstance(there, dict):
        return _was(name, there, here)
    edited = sorted(file for file in {**there, **here} if there.get(file) != here.get(file))
    return f"{', '.join(edited)} was edited since it began"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A setting, or a fact that follows from settings."""

    name: str  # in config.json; of a setting also that of its option
    repeat: bool = True  # --config and --resume take it over: it says which run it is, and not where and how it is done
    may_change: bool = False  # when a run is continued: it is a goal, or has no influence on any number
    newer: bool = False  # than version 0.1, whose runs lack it, as if nothing had been given
    goal: bool = False  # of the run: with a new one the old ones are forgotten
    of_first_phase: bool = False  # where --then names others
    names_code: bool = False  # that is a user's, maybe
    for_points: str = ""  # what to give in its place for points, which have no epochs
    follows_from: tuple[str, ...] = ()  # names of settings
    may_differ: bool = False  # when a run is repeated: then it is a warning
    compared: Callable[[Any], Any] = lambda value: value  # the part of a value that must be the same to continue a run
    message: Callable[[str, Any, Any], str] = _was  # (name, value there, value here) -> how they differ

    def difference(self, there: Any, here: Any) -> str:
        """How two values differ, None for one that is not there; empty where they do not."""
        parts = [self.compared(value) for value in (there, here)]
        same = parts[0] == parts[1] or all(part in (None, []) for part in parts)
        return "" if same else self.message(self.name, there, here)


SETTINGS = (
    Entry("dataset", names_code=True),
    Entry("model", names_code=True),
    Entry("loss", names_code=True),
    Entry("residuals", names_code=True, newer=True),
    Entry("loss_weights", newer=True),
    Entry("dtype", newer=True),
    Entry("optimizer", names_code=True),
    Entry("options", of_first_phase=True),
    Entry("epochs", may_change=True, goal=True, for_points="give --steps"),
    Entry("steps", may_change=True, goal=True, of_first_phase=True),
    Entry("then", newer=True, compared=specs.without_goal),
    Entry("batch_size", for_points="give it to tl.Points"),
    Entry("seed"),
    Entry("steps_per_call", may_change=True),
    Entry("microbatch"),
    Entry("jit"),
    Entry("devices", may_change=True),
    Entry("eager"),
    Entry("layer_norms"),
    Entry("deterministic"),
    Entry("max_seconds", may_change=True),
    Entry("max_evaluations", may_change=True),
    Entry("f_target", may_change=True),
    Entry("on_nonfinite", may_change=True),
    Entry("checkpoint_minutes", may_change=True),
    Entry("checkpoint_steps", may_change=True),
    Entry("keep", may_change=True),
    Entry("keep_best", may_change=True, for_points="give --checkpoint-steps"),
    Entry("resume", repeat=False, may_change=True),
    Entry("run_dir", repeat=False, may_change=True),
    Entry("overwrite", repeat=False, may_change=True),
    Entry("config", repeat=False, may_change=True),
    Entry("tensorboard", may_change=True),
    Entry("quiet", repeat=False, may_change=True),
    Entry("dry_run", repeat=False, may_change=True),
)

NAMING_CODE = tuple(entry.name for entry in SETTINGS if entry.names_code)

FACTS = (
    Entry("data_fingerprint", follows_from=("dataset", "batch_size", "seed", "dtype")),
    Entry("layout_fingerprint", follows_from=("dataset", "model", "dtype")),
    Entry("parameters", follows_from=("dataset", "model")),
    Entry("training_samples", follows_from=("dataset",)),
    Entry("optimizer_config", follows_from=("optimizer", "options", "then")),
    # A user's own files are edited all the time.
    Entry("code", newer=True, follows_from=(*NAMING_CODE, "options", "then"), may_differ=True, message=_edited),
)


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """How two configurations, as JSON has them, differ in what must be the same to continue a run."""
    rows = (entry for entry in (*SETTINGS, *FACTS) if not entry.may_change)
    return [text for row in rows if (text := row.difference(there.get(row.name), here.get(row.name)))]
