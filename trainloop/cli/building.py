"""From settings to a loop and the folder that it runs in, for a run and for a dry run. No file is written.

This module imports TensorFlow: the programs import it when their arguments are read.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from trainloop import checks
from trainloop.cli.common import echo
from trainloop.cli.defaults import with_defaults
from trainloop.data.arrays import ArrayData
from trainloop.data.points import Points
from trainloop.distributed.workers import Workers, choose_strategy
from trainloop.hooks.display import LiveDisplay, PlainLines
from trainloop.hooks.layer_norms import LayerNorms
from trainloop.hooks.metrics_file import MetricsFile
from trainloop.hooks.save_checkpoint import SaveCheckpoint
from trainloop.hooks.stopping import StopWhen
from trainloop.hooks.tensorboard import TensorBoardFile
from trainloop.loop.bookkeeping import summary_names
from trainloop.loop.metrics import MetricSet
from trainloop.loop.train_loop import TrainLoop
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.runs import config as run_config
from trainloop.runs import phases, specs
from trainloop.runs.assembly import Assembly, assemble
from trainloop.runs.directory import RunDirectory, UnwrittenDirectory
from trainloop.runs.plugins import parse_weights
from trainloop.vectors.layout import FlatLayout


@dataclasses.dataclass(frozen=True)
class Built:
    """Everything that a run consists of: see the functions below for the parts."""

    settings: dict[str, Any]  # of all options, by name
    facts: dict[str, Any]
    parts: Assembly
    batches: ArrayData | Points
    optimizers: list[WholeVectorOptimizer]  # one for each phase
    loop: TrainLoop
    directory: RunDirectory | UnwrittenDirectory

    @property
    def config(self) -> dict[str, Any]:
        """What the run's config.json says."""
        return {**self.settings, **self.facts}


def build(settings, check_facts):
    """The `Built` of the settings of all options, after finding everything that can be wrong with them.

    Args:
        settings: by name, None where nothing is given.
        check_facts: function that raises ValueError where they are not those of the run that is repeated.
    """
    if settings["resume"] and (settings["overwrite"] or settings["run_dir"] is None):
        raise ValueError("--resume needs --run-dir, the folder of the run, and no --overwrite")
    strategy, workers = choose_devices(settings)
    choose_precision(settings["dtype"])
    optimizers = phases.optimizers(specs.phases(settings))
    with workers.watched(), strategy.scope():
        parts = assembled(settings)
    settings = with_defaults(settings, parts.data)
    # Of several workers only the first one writes.
    where = settings["run_dir"], settings["overwrite"], settings["resume"]
    directory = RunDirectory(*where) if workers.index == 0 else UnwrittenDirectory(settings["run_dir"])
    batches = batches_of(parts, settings)
    facts = run_config.facts(settings, FlatLayout.of(parts.model.trainable_variables), batches, optimizers)
    check_facts(facts)
    check_keep_best(settings["keep_best"], parts.metrics)
    loop = make_loop(settings, parts, phases_of(settings, optimizers, batches), make_hooks(settings, directory))
    return Built(settings, facts, parts, batches, optimizers, loop, directory)


def choose_devices(settings):
    """(strategy, `Workers`), after a check that all workers have the same settings."""
    strategy = choose_strategy(settings["devices"]) or tf.distribute.get_strategy()
    workers = Workers(strategy)
    workers.compare("settings", settings)
    if settings["deterministic"]:
        tf.config.experimental.enable_op_determinism()
    return strategy, workers


def choose_precision(dtype):
    """Before any code of a user runs: `keras.config.floatx` decides what layers and `Box` are made in."""
    if dtype is not None:
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)  # which Keras takes from floatx only once


def assembled(settings):
    """The `Assembly` of the settings: data, model, loss and metrics."""
    named = {name: settings[name] for name in ("dataset", "model", "loss", "residuals")}
    return assemble(**named, seed=settings["seed"], loss_weights=parse_weights(settings["loss_weights"]))


def batches_of(parts, settings):
    """What is trained on: an `ArrayData`, or the `Points`."""
    if isinstance(parts.train, Points):
        return parts.train
    batch_size = None if settings["batch_size"] == "full" else settings["batch_size"]
    return ArrayData(*parts.train, batch_size, settings["seed"])


def phases_of(settings, optimizers, batches):
    """What `TrainLoop` takes as optimizer: one, or a list of `Phase`s that are all reached."""
    asked = specs.phases(settings)
    if len(asked) > 1 and not isinstance(batches, Points):
        phases.check_epochs(asked, settings["epochs"], batches.steps_per_epoch)
    return phases.in_phases(asked, optimizers)


def check_keep_best(name, metrics):
    """Raise ValueError for a name of --keep-best that no epoch's summary will have: a run would raise it later."""
    if name is not None:
        checks.choice("--keep-best", name, summary_names(MetricSet(metrics), validated=True))


def make_hooks(settings, directory):
    """Logs first, and the checkpoint last: it is to have everything."""
    console, limits = Console(), [settings[name] for name in ("f_target", "max_seconds", "max_evaluations")]
    minutes, steps = settings["checkpoint_minutes"], settings["checkpoint_steps"]
    return [
        MetricsFile(directory.metrics),
        *([TensorBoardFile(directory.tensorboard)] if settings["tensorboard"] else []),
        *([] if settings["quiet"] else [LiveDisplay(console) if console.is_interactive else PlainLines(echo)]),
        *([] if limits == [None] * 3 else [StopWhen(*limits)]),
        *([LayerNorms()] if settings["layer_norms"] else []),
        SaveCheckpoint(directory.checkpoints, steps, minutes, settings["keep"], settings["keep_best"]),
    ]


def make_loop(settings, parts, optimizer, hooks):
    """The `TrainLoop` of settings, an `Assembly`, what `phases_of` returned, and hooks."""
    return TrainLoop(
        parts.model,
        optimizer,
        parts.loss,
        loss_fn=parts.loss_fn,
        residuals=parts.residuals,
        loss_weights=parts.loss_weights,
        metrics=parts.metrics,
        hooks=hooks,
        jit_compile=settings["jit"],
        eager=settings["eager"],
        steps_per_call=settings["steps_per_call"],
        microbatch_size=settings["microbatch"],
        on_nonfinite=settings["on_nonfinite"],
    )
