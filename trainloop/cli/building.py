"""From settings to a loop and the folder that it runs in, for a run and for a dry run. No file is written."""

import dataclasses
from typing import TYPE_CHECKING, Any

from trainloop.cli.common import echo
from trainloop.cli.defaults import with_defaults

if TYPE_CHECKING:
    from trainloop.data.arrays import ArrayData
    from trainloop.data.points import Points
    from trainloop.loop.phases import Phase
    from trainloop.loop.train_loop import TrainLoop
    from trainloop.optimizer.base import WholeVectorOptimizer
    from trainloop.runs.assembly import Assembly
    from trainloop.runs.directory import RunDirectory, UnwrittenDirectory


@dataclasses.dataclass(frozen=True)
class Built:
    """Everything that a run consists of.

    Attributes:
        settings: of all options, by name, with the defaults that fit the data.
        facts: what came of them, see `trainloop.runs.config.facts`.
        parts: data, model, loss and metrics.
        batches: what is trained on.
        optimizer: as `TrainLoop` was given it.
        loop: the `TrainLoop`.
        directory: of the run.
    """

    settings: dict[str, Any]
    facts: dict[str, Any]
    parts: "Assembly"
    batches: "ArrayData | Points"
    optimizer: "WholeVectorOptimizer | list[Phase]"
    loop: "TrainLoop"
    directory: "RunDirectory | UnwrittenDirectory"

    @property
    def config(self) -> dict[str, Any]:
        """What the run's config.json says."""
        return {**self.settings, **self.facts}


def build(settings, check_facts):
    """Find everything that can be wrong with the settings.

    Args:
        settings: of all options, by name.
        check_facts: function that raises ValueError where they are not those of the run that is repeated.

    Returns:
        `Built`.

    Raises:
        ValueError, OSError: what is wrong, in one line.
    """
    import trainloop as tl
    from trainloop.runs import config as run_config
    from trainloop.runs import phases, words

    if settings["resume"] and (settings["overwrite"] or settings["run_dir"] is None):
        raise ValueError("--resume needs --run-dir, the folder of the run, and no --overwrite")
    strategy, workers = choose_devices(settings)
    choose_precision(settings["dtype"])
    optimizers = phases.optimizers(words.phases(settings))
    with workers.watched(), strategy.scope():
        parts = assembled(settings)
    settings = with_defaults(settings, parts.data)
    directory = choose_directory(settings, workers)
    batches = batches_of(parts, settings)
    optimizer = phases_of(settings, optimizers, batches)
    facts = run_config.facts(settings, tl.FlatLayout.of(parts.model.trainable_variables), batches, optimizers)
    check_facts(facts)
    check_keep_best(settings["keep_best"], parts.metrics)
    loop = make_loop(settings, parts, optimizer, make_hooks(settings, directory))
    return Built(settings, facts, parts, batches, optimizer, loop, directory)


def choose_devices(settings):
    """(strategy, `Workers`), after a look whether all workers were told the same."""
    import tensorflow as tf

    from trainloop.distributed.workers import Workers, choose_strategy

    strategy = choose_strategy(settings["devices"]) or tf.distribute.get_strategy()
    workers = Workers(strategy)
    workers.compare("settings", settings)
    if settings["deterministic"]:
        tf.config.experimental.enable_op_determinism()
    return strategy, workers


def choose_precision(dtype):
    """Before any code of a user runs: `keras.config.floatx` decides what layers and `Box` are made in."""
    import keras

    if dtype is not None:
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)  # which Keras takes from floatx only once


def assembled(settings):
    """The `Assembly` of the settings."""
    import trainloop as tl
    from trainloop.runs.plugins import parse_weights

    words = {name: settings[name] for name in ("dataset", "model", "loss", "residuals")}
    return tl.assemble(**words, seed=settings["seed"], loss_weights=parse_weights(settings["loss_weights"]))


def choose_directory(settings, workers):
    """The folder of the run; of several workers only the first one writes there."""
    from trainloop.runs.directory import RunDirectory, UnwrittenDirectory

    if workers.index > 0:
        return UnwrittenDirectory(settings["run_dir"])
    return RunDirectory(settings["run_dir"], settings["overwrite"], settings["resume"])


def batches_of(parts, settings):
    """What is trained on: an `ArrayData`, or the `Points`."""
    import trainloop as tl

    if isinstance(parts.train, tl.Points):
        return parts.train
    batch_size = None if settings["batch_size"] == "full" else settings["batch_size"]
    return tl.ArrayData(*parts.train, batch_size, settings["seed"])


def phases_of(settings, optimizers, batches):
    """What `TrainLoop` takes as optimizer: one, or a list of `Phase`s that are all reached."""
    import trainloop as tl
    from trainloop.runs import phases, words

    asked = words.phases(settings)
    if len(asked) > 1 and not isinstance(batches, tl.Points):
        phases.check_epochs(asked, settings["epochs"], batches.steps_per_epoch)
    return phases.in_phases(asked, optimizers)


def check_keep_best(name, metrics):
    """Raise for a name that no epoch's summary will have, before a file is written.

    Args:
        name: given with --keep-best, or None.
        metrics: those of the loop.

    Raises:
        ValueError: names those that there are.
    """
    from trainloop import checks
    from trainloop.loop.bookkeeping import summary_names
    from trainloop.loop.metrics import MetricSet

    if name is not None:
        checks.choice("--keep-best", name, summary_names(MetricSet(metrics), validated=True))


def make_hooks(settings, directory):
    """Logs first, and the checkpoint last: it is to have everything."""
    import trainloop as tl
    from trainloop.hooks.stopping import StopWhen

    limits = [settings[name] for name in ("f_target", "max_seconds", "max_evaluations")]
    minutes, steps = settings["checkpoint_minutes"], settings["checkpoint_steps"]
    return [
        tl.MetricsFile(directory.metrics),
        *([tl.TensorBoardFile(directory.tensorboard)] if settings["tensorboard"] else []),
        *([] if settings["quiet"] else [make_display()]),
        *([] if limits == [None] * 3 else [StopWhen(*limits)]),
        *([tl.LayerNorms()] if settings["layer_norms"] else []),
        tl.SaveCheckpoint(directory.checkpoints, steps, minutes, settings["keep"], settings["keep_best"]),
    ]


def make_display():
    """A view that moves on a terminal, lines elsewhere."""
    from rich.console import Console

    from trainloop.hooks.display import LiveDisplay, PlainLines

    console = Console()
    return LiveDisplay(console) if console.is_interactive else PlainLines(echo)


def make_loop(settings, parts, optimizer, hooks):
    """The `TrainLoop` of the settings.

    Args:
        settings: of all options, by name.
        parts: the `Assembly`.
        optimizer: from `phases_of`.
        hooks: list of them.
    """
    import trainloop as tl

    return tl.TrainLoop(
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
