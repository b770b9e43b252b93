"""A run's config.json, used for what it is there for: to do the run again.

It has, side by side,

    settings    options of the command line, and defaults of the others
    facts       what came of them: n, fingerprints of data and layout, the optimizer with all its arguments
    versions    of everything that the numbers depend on

The settings are repeated, except for those that are overridden. The facts must then come out the same.
"""

import dataclasses
import json

from trainloop import files
from trainloop.runs import specs, user_code
from trainloop.runs.settings import FACTS, NAMING_CODE, SETTINGS
from trainloop.versions import versions


def facts(settings, layout, batches, optimizers):
    """What came of the settings.

    Args:
        settings: dict with "optimizer", "options", "model", "dataset" and "loss"; "residuals", "steps" and "then" where
            there are some.
        layout: the `FlatLayout` of the model.
        batches: an `ArrayData` or `Points`.
        optimizers: list of them, one for each phase, built or not. The configuration of several is a list.
    """
    named = [settings.get(name) for name in NAMING_CODE]
    configs = [optimizer.get_config() for optimizer in optimizers]
    return {
        "parameters": layout.size,
        "layout_fingerprint": layout.fingerprint(),
        "data_fingerprint": batches.fingerprint(),
        "training_samples": batches.size,
        "optimizer_config": configs if len(configs) > 1 else configs[0],
        "code": user_code.digests(*named, *specs.values(specs.phases(settings))),
    }


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a config.json says: dicts of settings, facts and versions."""

    path: str
    settings: dict
    facts: dict
    versions: dict

    def overridden(self, settings, given):
        """These settings for a run that repeats this one, except for what is given anew.

        Arguments of the optimizer override one by one. Those of another optimizer are not taken over.

        Args:
            settings: all of them: recorded ones, and in their place what was given.
            given: names of those that were given.

        Returns:
            (settings, {name: (here, there)} of those that are different).
        """
        settings = dict(settings)
        same_method = settings["optimizer"] == self.settings["optimizer"]
        if same_method and "options" in given:
            settings["options"] = _merged(self.settings["options"], settings["options"])
        elif not same_method and "options" not in given:
            settings["options"] = ()
        here = json.loads(json.dumps(settings))
        lacking = [entry.name for entry in SETTINGS if entry.newer and entry.name in here]
        before = {name: [] if isinstance(here[name], list) else None for name in lacking} | self.settings
        changed = {name: (here[name], there) for name, there in before.items() if here[name] != there}
        return settings, changed

    def continued(self, settings, given):
        """Settings to continue with: the recorded ones, and in their place what was given.

        Args:
            settings: all of them.
            given: names of those that were given. Goals count as one: with new steps the old epochs are forgotten.
                Steps before --then are no goal: they are those of the first phase.
        """
        several = bool(self.settings.get("then"))
        goals = {entry.name for entry in SETTINGS if entry.goal and not (several and entry.of_first_phase)}
        new = {*given, *(goals if goals & set(given) else ())}
        if "optimizer" in given and settings["optimizer"] != self.settings["optimizer"]:
            new.add("options")  # those of another optimizer; that it is another one is rejected later
        return settings | {name: _as_given(value) for name, value in self.settings.items() if name not in new}

    def check(self, facts, changed):
        """Reject a run that would be another one though its settings are the same.

        Args:
            facts: those here.
            changed: names of the settings that are different on purpose.

        Raises:
            ValueError: names what differs, with both sides.
        """
        here = json.loads(json.dumps(facts))
        rows = [row for row in FACTS if not row.may_differ and not set(row.follows_from) & set(changed)]
        differing = [text for row in rows if (text := row.difference(self.facts[row.name], here[row.name]))]
        if differing:
            raise ValueError(
                f"{self.path} cannot be repeated: {'; '.join(differing)}. Put back what has changed, or give the "
                "options that are to be different"
            )

    def other_code(self, facts):
        """A message about files of the user that have changed since; empty where none has."""
        before, here = self.facts.get("code", {}), facts["code"]
        changed = [source for source in before if source in here and here[source] != before[source]]
        return f"{', '.join(changed)} changed since {self.path}: its numbers may differ" if changed else ""

    def other_versions(self):
        """A message about versions that are not those here; empty where all are the same."""
        here = versions()
        differing = [
            f"{name} {self.versions.get(name, 'unknown')} (here {here.get(name, 'unknown')})"
            for name in {**self.versions, **here}
            if self.versions.get(name) != here.get(name)
        ]
        if not differing:
            return ""
        return f"{self.path} was made with {', '.join(differing)}: the last bits of its numbers may differ"


def read(path):
    """What a config.json says.

    Args:
        path: of the file.

    Returns:
        `Recorded`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not the configuration of a run, has settings that are unknown here, or lacks some.
    """
    content = _read_dict(path)
    kinds = {"versions": dict, "options": list, "code": dict}
    for name, value, kind in [(name, content.get(name, kind()), kind) for name, kind in kinds.items()]:
        if not isinstance(value, kind):
            raise ValueError(f"{path} is not a config.json of a run: {name} is {value!r}")
    made_with = content.pop("versions", {})
    found = {entry.name: content.pop(entry.name) for entry in FACTS if entry.name in content}
    once = {entry.name for entry in SETTINGS if not entry.repeat}
    settings = {name: value for name, value in content.items() if name not in once}
    wanted = [entry for entry in (*SETTINGS, *FACTS) if entry.repeat]
    unknown = [name for name in settings if name not in {entry.name for entry in wanted}]
    missing = [entry.name for entry in wanted if not entry.newer and entry.name not in {**settings, **found}]
    if unknown or missing:
        faults = [f"has {', '.join(unknown)}, unknown here"] if unknown else []
        faults += [f"lacks {', '.join(missing)}"] if missing else []
        there, here = (v.get("trainloop", "an unknown version") for v in (made_with, versions()))
        raise ValueError(
            f"{path} {' and '.join(faults)}; it was written by trainloop {there}, this is {here}: use the version it "
            "was written by, or give the options themselves"
        )
    return Recorded(str(path), settings, found, made_with)


def message(path, changed):
    """`repeats runs/a/config.json, but with seed 1 instead of 0`."""
    but = ", ".join(f"{name} {_text(here)} instead of {_text(there)}" for name, (here, there) in changed.items())
    return f"repeats {path}" + (f", but with {but}" if but else "")


def _read_dict(path):
    try:
        content = files.read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a config.json of a run, because it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a config.json of a run: it holds a {type(content).__name__}")
    return content


def _as_given(value):
    """A setting from JSON as the command line gives it, which has tuples instead of lists."""
    return tuple(value) if isinstance(value, list) else value


def _merged(options, others):
    """Texts key=value: the first ones with the others in place of those with the same key."""
    named = {text.partition("=")[0]: text for text in (*options, *others)}
    return tuple(named.values())


def _text(value):
    return (" ".join(value) or "nothing") if isinstance(value, list) else str(value)
