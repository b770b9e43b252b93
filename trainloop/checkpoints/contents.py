"""What a checkpoint of a training loop consists of, and the way back.

    arrays  model/...      every variable: weights, BatchNormalization averages, dropout seeds
            extra/...      what is trained besides
            optimizer/...  iterations, learning rate, the optimizer's state, the record of failed steps
            metrics/...    counters of the running epoch
            evaluations    by kind, for optimizers that evaluate
            data/...       a dataset's iterator as its epoch began, points that were replaced; arrays need none
            handed_on/...  f and g for the next step, where the batch does not change
            random/...     Python's and NumPy's generators
            hooks/...      arrays that hooks remember
    meta    of             model, optimizer or phases, metrics (class and configuration) and data, to be compared
            run            step, epoch, index of the next batch, sums of the running epoch, summaries of those before
            phase          which one it is, and where it stands, for loops with phases
            hooks          what hooks remember: best value so far, length of metrics.jsonl, ...

Variables are read and written one after the other, where they are. Nothing else has a copy of them.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import re
from typing import Any

import numpy as np

from trainloop.checkpoints import random_state
from trainloop.checkpoints.resumable import variables_of
from trainloop.errors import users_line
from trainloop.versions import versions

_LOG = logging.getLogger("trainloop")


@dataclasses.dataclass
class Position:
    """Where the run of a checkpoint stood, kept until the next run gets its data.

    `of` is the description of the data, `run` what `Bookkeeping.state` returned, `data` is for the feed.
    """

    path: pathlib.Path
    of: dict[str, Any]
    run: dict[str, Any]
    data: dict[str, np.ndarray]
    rollbacks: int

    def is_of(self, feed):
        """Whether it is a position in these data."""
        return self.of == feed.description()

    def find_in(self, feed):
        """Let a feed stand there.

        Raises:
            ValueError: it has other data, or no such batch; names what differs.
        """
        _compare(self.path, "data set", self.of, feed.description())
        batches = feed.steps_per_epoch
        if batches is not None and self.run["index"] > batches:
            raise ValueError(
                f"{self.path} stands at batch {self.run['index']} of an epoch, which has {batches} here; its record is "
                "wrong: take the checkpoint before, or begin a new run"
            )
        feed.load_state(self.data, self.run["epoch"], self.run["index"])

    def continue_in(self, run):
        """Let a run stand there. Raises as `find_in`."""
        self.find_in(run.feed)
        run.load_state(self.run)


def identity(model, optimizers, metrics, extra_variables=()):
    """What a model, optimizers and a `MetricSet` are, to be compared with what a checkpoint was made of: JSON-able.

    `optimizers` is {kind: what they are}, with the `description` of each.

    Numbers that Keras puts behind names to tell them apart do not count: they depend on what else a process has made.
    """
    described = {name: f"{list(v.shape)} {v.dtype}" for name, v in variables_of(model).items()}
    described |= {f"extra {i:03d}": f"{list(v.shape)} {v.dtype}" for i, v in enumerate(extra_variables)}
    of_metrics = {
        f"{i} {name}": re.sub("_[0-9]+$", "", value) if name == "config name" else value
        for i, metric in enumerate(metrics.all())
        for name, value in description(metric).items()
    }
    return {"model": described, **optimizers, "set of metrics": of_metrics}


def description(configured):
    """Class and configuration of an object of Keras: JSON-able."""
    text = json.dumps(configured.get_config(), default=str)
    config = json.loads(re.sub(r" at 0x[0-9a-f]+", "", text))  # where an object lies in memory is no part of what it is
    kind = {"class": f"{type(configured).__module__}.{type(configured).__qualname__}"}
    return kind | {f"config {name}": value for name, value in config.items()}


def save(folder, parts):
    """Write a checkpoint of the current run.

    Args:
        folder: a `CheckpointFolder`.
        parts: a `Resumable` between two blocks.

    Raises:
        OSError: it cannot be written.
        ValueError: the position in the data cannot be saved, or what a hook remembers.
    """
    arrays = dict(parts.variables())
    arrays |= {f"data/{name}": array for name, array in parts.run.feed.state().items()}
    arrays |= {f"handed_on/{name}": array for name, array in parts.handed_on.state(parts.run.feed).items()}
    arrays |= {f"random/{name}": array for name, array in random_state.state().items()}
    hooks = {}
    for name, hook in parts.named_hooks():
        state = hook.state()
        arrays |= {f"hooks/{name}/{key}": value for key, value in state.items() if isinstance(value, np.ndarray)}
        hooks[name] = _json_able(name, {k: value for k, value in state.items() if not isinstance(value, np.ndarray)})
    meta = {
        "run": parts.run.state(),
        "rollbacks": parts.rollbacks,
        **({} if parts.phase is None else {"phase": parts.phase}),
        "hooks": hooks,
        "of": {**parts.of, "data set": parts.run.feed.description()},
        "layout_fingerprint": parts.optimizer.layout.fingerprint(),
        "versions": versions(),
    }
    folder.write(parts.run.step, arrays, meta)


def check_same(saved, of):
    """Raise where a checkpoint is one of other things.

    Args:
        saved: an opened `Saved` checkpoint.
        of: from `identity`.

    Raises:
        ValueError: names what differs.
    """
    for kind, here in of.items():
        _compare(saved.path, kind, _with_short_names(saved.meta["of"].get(kind, {})), _with_short_names(here))


def load(saved, parts):
    """Put everything but the position in the data where it was.

    Args:
        saved: an opened `Saved` checkpoint.
        parts: a `Resumable`.

    Returns:
        `Position`, for the run that continues.

    Raises:
        ValueError: the checkpoint is one of another model, optimizer or set of metrics; then nothing was changed. Or a
            hook cannot be as it was; then the hooks before it are, and nothing else was changed.
    """
    check_same(saved, parts.of)
    variables = parts.variables()
    _compare(saved.path, "set of variables", _shapes_saved(saved, variables), _shapes_here(saved, variables))
    # Hooks come first: they are user code, and an exception there should leave the model untouched.
    for name, hook in parts.named_hooks():
        if name in saved.meta["hooks"]:
            with _wrong_state_named(saved.path, name):
                hook.load_state(saved.meta["hooks"][name] | _below(saved, f"hooks/{name}/"))
    for name, variable in variables.items():
        variable.assign(_with_kinds_of_today(name, saved.read(name), variable))
    parts.handed_on.load_state(_below(saved, "handed_on/"))
    with _wrong_state_named(saved.path, "generators of random numbers"):
        random_state.load_state(_below(saved, "random/"))
    meta = saved.meta
    if meta["versions"] != versions():
        _LOG.warning("%s was made with %s, here are %s: numbers may differ", saved.path, meta["versions"], versions())
    run = _with_names_of_today(meta["run"], parts.metrics.former_names())
    return Position(saved.path, meta["of"]["data set"], run, _below(saved, "data/"), meta["rollbacks"])


@contextlib.contextmanager
def _wrong_state_named(path, name):
    """What is raised about entries that are missing or of a wrong type is a ValueError of one line."""
    try:
        yield
    except (TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"{path} has a state of {name} that cannot be loaded{users_line(error)}: {type(error).__name__}: {error}; "
            "use the version it was written with, or begin a new run"
        ) from error


def _json_able(name, state):
    """What a hook remembers, or a ValueError that names hook and key of what JSON does not know."""
    for key, value in state.items():
        try:
            json.dumps({key: value})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"state() of the hook {name} must return JSON-able values and NumPy arrays; {key!r} is a "
                f"{type(value).__name__} ({error}); convert numbers with float() or int()"
            ) from error
    return state


def _below(saved, prefix):
    return {name.removeprefix(prefix): saved.read(name) for name in saved.names if name.startswith(prefix)}


def _with_short_names(described):
    """A description in which classes of this package stand without their modules, which may move."""
    return {
        name: re.sub(r"^trainloop\.[\w.]*\.", "trainloop.", value) if name.split()[-1] == "class" else value
        for name, value in described.items()
    }


def _with_kinds_of_today(name, array, variable):
    """An array as the variable has it: version 0.1 counted fewer kinds of evaluations."""
    if name != "evaluations":
        return array
    return np.concatenate([array, np.zeros(variable.shape[0] - len(array), array.dtype)])


def _with_names_of_today(run, former):
    """Where a run stood, with the names that metrics have now in its summaries of epochs: version 0.1 had others."""
    former = former | {f"val_{old}": f"val_{new}" for old, new in former.items()}
    epochs = [
        {name if former.get(name, name) in epoch else former.get(name, name): value for name, value in epoch.items()}
        for epoch in run["recorder"]["epochs"]
    ]
    return {**run, "recorder": {**run["recorder"], "epochs": epochs}}


def _shapes_saved(saved, variables):
    ours = ("model/", "extra/", "optimizer/", "metrics/", "evaluations")
    return {name: list(saved.shape(name)) for name in saved.names if name in variables or name.startswith(ours)}


def _shapes_here(saved, variables):
    """Shapes of variables; of one that grows, the shape that was saved where it is possible."""
    shapes = {}
    for name, variable in variables.items():
        there = saved.shape(name) if name in saved.names else None
        fewer_kinds = name == "evaluations" and there is not None and there[0] < variable.shape[0]
        fits = there is not None and (fewer_kinds or variable.shape.is_compatible_with(there))
        shapes[name] = list(there) if fits else variable.shape.as_list()
    return shapes


def _compare(path, kind, there, here):
    """ValueError that names what differs, unless both are the same."""
    differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if differing:
        listing = "; ".join(
            f"{name} was {there.get(name, 'not there')}, here it is {here.get(name, 'not there')}"
            for name in itertools.islice(differing, 4)
        )
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(
            f"{path} was made with another {kind}: {listing}{more}. Use the one it was made with, or begin a new run"
        )
