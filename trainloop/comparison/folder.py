"""The files of one comparison, under one roof.

comparison.json                 what is compared on what
runs/<optimizer>/seed-<k>/         the files of one run of `trainloop train`, once complete without checkpoints
runs/<optimizer>/seed-<k>.log      what it printed
runs/<optimizer>/seed-<k>.exit.json how its process ended
summary.json, report.html       what came out
by-epochs.png, ...              the report's curves
lock                            held by the process that works here
"""

import contextlib
import dataclasses
import json
import pathlib

from trainloop import files
from trainloop.checkpoints.files import CheckpointFolder
from trainloop.comparison.entrant import Entrant, parse, parse_all
from trainloop.files import RunLock
from trainloop.runs.directory import remove_files


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a comparison: an optimizer, a seed and a folder."""

    entrant: Entrant
    seed: int
    folder: pathlib.Path

    @property
    def name(self):
        return f"{self.entrant.label}, seed {self.seed}"

    @property
    def metrics(self):
        return self.folder / "metrics.jsonl"

    @property
    def output(self):
        """What it printed."""
        return self.folder.with_suffix(".log")

    @property
    def exit(self):
        """How its process ended, written by who waited for it."""
        return self.folder.with_suffix(".exit.json")

    def remove(self):
        """Remove all of it, and no file of others."""
        if self.folder.is_dir():
            remove_files(self.folder)
            (self.folder / "lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others have files in it
                self.folder.rmdir()
        for path in (self.output, self.exit):
            path.unlink(missing_ok=True)

    def remove_checkpoints(self):
        """Remove what only a run needs that goes on; with a matrix in it that may be most of a disk."""
        with contextlib.suppress(OSError):  # they only take room
            CheckpointFolder(self.folder / "checkpoints").remove_all()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared on what.

    Attributes:
        path: its folder.
        common: tuple of options of `trainloop train` that all runs have, such as "--dataset=digits".
        entrants: tuple of `Entrant`.
        seeds: tuple of ints.
    """

    path: pathlib.Path
    common: tuple
    entrants: tuple
    seeds: tuple

    @property
    def runs(self):
        """All of them, seed by seed, so that what is finished early has something of everybody."""
        return [
            Run(entrant, seed, self.path / "runs" / entrant.folder / f"seed-{seed}")
            for seed in self.seeds
            for entrant in self.entrants
        ]

    def epochs(self, run):
        """How many a run will have; None where it ends by its steps."""
        given = dict(argument.partition("=")[::2] for argument in self.arguments(run))
        return int(given["--epochs"]) if "--epochs" in given else None

    def arguments(self, run):
        """Of trainloop train, for one run, whether it begins or goes on."""
        return [*run.entrant.arguments(self.common), f"--seed={run.seed}", f"--run-dir={run.folder}", "--resume"]


def lock(path):
    """Keep a folder, which is made where it is not there, for this process.

    Returns:
        `RunLock`.

    Raises:
        ValueError: it is a file, or another process works there.
        OSError: it cannot be made or written.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give a folder for the comparison")
    path.mkdir(parents=True, exist_ok=True)
    return RunLock(path / "lock")


def begin(path, common, labels, seeds):
    """Write down a new comparison, or add optimizers and seeds to the one that is there.

    Raises:
        ValueError: bad labels, or a comparison with other common settings.
        OSError: the folder cannot be written.
    """
    path = pathlib.Path(path)
    entrants = parse_all(labels)  # what is misspelt among them is rejected before anything else
    before = read(path) if (path / "comparison.json").exists() else None
    if before is not None:
        if list(before.common) != list(common):
            raise ValueError(
                f"{path} is a comparison with other settings: {' '.join(before.common)}; here they are "
                f"{' '.join(common)}. Use the same, or another folder"
            )
        labels = list(dict.fromkeys([*(entrant.label for entrant in before.entrants), *labels]))
        seeds = sorted({*before.seeds, *seeds})
        entrants = parse_all(labels)
    path.mkdir(parents=True, exist_ok=True)
    content = {"common": list(common), "methods": list(labels), "seeds": list(seeds)}
    files.replace_text(path / "comparison.json", json.dumps(content, indent=2) + "\n")
    return Comparison(path, tuple(common), tuple(entrants), tuple(seeds))


def read(path):
    """The comparison in a folder.

    Raises:
        ValueError: there is none, or its file cannot be understood.
    """
    path = pathlib.Path(path)
    try:
        content = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
        common, labels, seeds = content["common"], content["methods"], content["seeds"]
    except FileNotFoundError as error:
        raise ValueError(f"{path} has no comparison.json; give the folder of a comparison") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path / 'comparison.json'} is damaged ({error!r}); begin again in another folder") from error
    # Not made: a report is written also where an optimizer has gone since.
    return Comparison(path, tuple(common), tuple(map(parse, labels)), tuple(seeds))
