"""Train a network with an optimizer that works on the whole vector of its weights.

Without arguments: LeNet-5 on scikit-learn's handwritten digits with TestGD, the ellipsoid method.

    trainloop train
    trainloop train --list
    trainloop train --dataset mnist --optimizer adam -o learning_rate=0.002 --epochs 3
    trainloop train --optimizer my_method.py:MyMethod -o rad=2000
    trainloop train --optimizer adam --steps 5000 --then ssbroyden:storage=dense,--steps=2000 --batch-size full
    trainloop train --dataset mine.py:load --model mine.py:build --loss mine.py:loss
    trainloop train --dataset mine.py:points --model mine.py:build --residuals mine.py:residuals --dtype float64
    trainloop train --run-dir runs/mine --resume
    trainloop train --config runs/mine/config.json

Ctrl-C and SIGTERM end a run after its block of steps; --resume continues it, also after a crash.
"""

import sys

import click

from trainloop.checks import printable
from trainloop.cli.common import (
    BatchSize,
    OptionsBeforeThen,
    PhaseWord,
    as_help,
    blaming_user_code,
    echo,
    echo_text,
    import_tensorflow,
    in_one_line,
)
from trainloop.cli.recorded import chosen, read_config

# What runs when nothing is said: LeNet-5 on the digits ends above 95 %.
DEFAULT_OPTIMIZER, DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE = "testgd", 50, 64

# Points of residuals have no epochs, and a last phase may have no steps of its own.
DEFAULT_STEPS = 1000


@click.command(cls=OptionsBeforeThen, help=as_help(__doc__))
@click.option(
    "--dataset", default="digits", show_default=True, help="Name, .npz file, folder of IDX files, or file.py:function."
)
@click.option("--model", help="Name, or file.py:function.  [default: what fits the data, lenet5 for images]")
@click.option("--loss", help="Keras name or file.py:function.  [default: what fits the data and the model]")
@click.option(
    "--residuals", metavar="FILE.PY:NAME", help="Residuals in place of a loss: a function, or a dict of them."
)
@click.option(
    "--loss-weight",
    "loss_weights",
    multiple=True,
    metavar="TERM=X",
    help="By how much a term of the loss counts; repeat it.  [default: 1]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Of weights and data.  [default: that of Keras, float32]",
)
@click.option("--optimizer", default=DEFAULT_OPTIMIZER, show_default=True, help="Name, module:Class or file.py:Class.")
@click.option(
    "-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Argument of the optimizer; repeat it."
)
@click.option(
    "--epochs", type=click.IntRange(min=1), metavar="N", help=f"Passes over the data.  [default: {DEFAULT_EPOCHS}]"
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps; with --epochs, whichever comes first. Before --then, those of the first optimizer.",
)
@click.option(
    "--then",
    type=PhaseWord(),
    multiple=True,
    metavar="METHOD[:KEY=VALUE,...,--steps=N]",
    help="Optimizer that goes on where the one before has ended, with its arguments and steps; repeat it.  "
    f"[default of the last one's steps: {DEFAULT_STEPS}, unless --epochs]",
)
@click.option(
    "--batch-size",
    type=BatchSize(),
    metavar="N|full",
    help=f"Samples per step.  [default: {DEFAULT_BATCH_SIZE}, or all of a smaller data set]",
)
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True, help="Weights and order."
)
@click.option(
    "--steps-per-call",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps per compiled call.  [default: half a second]",
)
@click.option(
    "--microbatch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take each batch in parts of N samples; the sum is the same, in less memory.",
)
@click.option("--jit/--no-jit", default=False, show_default=True, help="Compile whole blocks with XLA.")
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train on N GPUs, or parts of the processor, of this machine.",
)
@click.option("--eager", is_flag=True, help="Compile nothing, so that a debugger works in the optimizer; slow.")
@click.option("--layer-norms", is_flag=True, help="Log norms of weights, gradient and step in every layer.")
@click.option(
    "--deterministic", is_flag=True, help="The same bits in every run on the same machine, at a price in speed."
)
@click.option("--max-seconds", type=click.FloatRange(min=0, min_open=True), metavar="X", help="End after X seconds.")
@click.option("--max-evaluations", type=click.IntRange(min=1), metavar="N", help="End after N evaluations of the loss.")
@click.option("--f-target", type=float, metavar="X", help="End when the loss of a batch is at most X.")
@click.option(
    "--on-nonfinite",
    type=click.Choice(["stop", "skip", "rollback"]),
    default="stop",
    show_default=True,
    help="When a step meets NaN or infinity.",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    default=1.0,
    show_default=True,
    help="Save at least that often.",
)
@click.option("--checkpoint-steps", type=click.IntRange(min=1), metavar="N", help="Save after every N-th step too.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", default=3, show_default=True, help="Last checkpoints.")
@click.option("--keep-best", metavar="NAME", help="Also save and keep the best epoch, by val_accuracy for example.")
@click.option("--resume", is_flag=True, help="Continue the run in --run-dir, with its settings.")
@click.option("--run-dir", help="Folder for the run's files.  [default: runs/<time>-<model>-<dataset>-<optimizer>]")
@click.option("--overwrite", is_flag=True, help="Replace a run that is in the folder already.")
@click.option(
    "--config",
    is_eager=True,
    callback=read_config,
    metavar="FILE",
    help="Repeat the run with this config.json; options given besides it override.",
)
@click.option("--tensorboard", is_flag=True, help="Also write curves for TensorBoard.")
@click.option("--quiet", is_flag=True, help="Print the result only, and errors.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and what memory it takes, and exit.")
@click.option(
    "--list",
    "show_list",
    is_flag=False,
    flag_value="all",
    metavar="[METHOD]",
    help="Show data sets, models and optimizers, or what one of these takes, and exit.",
)
@click.pass_context
def train(ctx, show_list, **settings):
    import_tensorflow()
    try:
        if show_list is not None:
            list_words(show_list)
            return
        run = prepare(*chosen(ctx, settings))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise click.UsageError(in_one_line(error)) from error
    with blaming_user_code():
        run()


def list_words(name):
    """What there is, or what one optimizer takes."""
    import trainloop as tl
    from trainloop.runs.plugins import describe

    if name != "all":
        echo(describe(name))
        return
    documented = {name: _first_line(thing) for name, thing in {**tl.MODELS, **tl.ALGORITHMS, **tl.WRAPPERS}.items()}
    for title, lines in (
        (
            "data sets (or an .npz file, a folder of IDX files, module:function or file.py:function, which may return "
            "tl.Points for --residuals)",
            tl.DATASETS,
        ),
        ("models (or module:function or file.py:function)", {name: documented[name] for name in tl.MODELS}),
        ("optimizers (or module:Class, or file.py:Class)", {name: documented[name] for name in tl.ALGORITHMS}),
        ("wrapper optimizers (-o inner=NAME)", {name: documented[name] for name in tl.WRAPPERS}),
    ):
        echo(f"{title}:")
        for name, line in lines.items():
            echo(f"  {name:<20}{line}")


def prepare(settings, check_facts):
    """Find everything that can be wrong with the settings before a file is written.

    Args:
        settings: of all options, by name.
        check_facts: function that raises ValueError where they are not those of the run that is repeated.

    Returns:
        A function without arguments that does the run.
    """
    import trainloop as tl
    from trainloop.runs import config as run_config
    from trainloop.runs import dry_run, phases, words

    if settings["resume"] and (settings["overwrite"] or settings["run_dir"] is None):
        raise ValueError("--resume needs --run-dir, the folder of the run, and no --overwrite")
    strategy, workers = choose_devices(settings)
    choose_precision(settings["dtype"])
    optimizers = phases.optimizers(words.phases(settings))
    with workers.watched(), strategy.scope():
        parts = assembled(settings)
    settings = with_defaults_for(parts.data, settings)
    directory = choose_directory(settings, workers)
    batches = batches_of(parts, settings)
    optimizer = phases_of(settings, optimizers, batches)
    facts = run_config.facts(settings, tl.FlatLayout.of(parts.model.trainable_variables), batches, optimizers)
    check_facts(facts)
    check_keep_best(settings["keep_best"], parts.metrics)
    hooks = make_hooks(settings, directory)
    if settings["dry_run"]:
        if workers.index > 0:  # one description is enough
            return lambda: None
        text = dry_run.describe(parts.data, batches, parts.model, optimizer, settings, directory, facts)
        return lambda: echo(text)
    for later in optimizers[1:]:  # not only when its phase begins, maybe hours later
        dry_run.check_optimizer(parts.model, later, settings)
    loop = make_loop(settings, parts, optimizer, hooks)
    config = {**settings, **facts}
    step = directory.resume(config, loop.restore) if settings["resume"] else directory.begin(config)

    def run():
        try:
            do_run(settings, directory, loop, batches, parts.test, step)
        finally:
            directory.release()

    return run


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


def phases_of(settings, optimizers, batches):
    """What `TrainLoop` takes as optimizer: one, or a list of `Phase`s that are all reached."""
    import trainloop as tl
    from trainloop.runs import phases, words

    asked = words.phases(settings)
    if len(asked) > 1 and not isinstance(batches, tl.Points):
        phases.check_epochs(asked, settings["epochs"], batches.steps_per_epoch)
    return phases.in_phases(asked, optimizers)


def batches_of(parts, settings):
    """What is trained on: an `ArrayData`, or the `Points`."""
    import trainloop as tl

    if isinstance(parts.train, tl.Points):
        return parts.train
    batch_size = None if settings["batch_size"] == "full" else settings["batch_size"]
    return tl.ArrayData(*parts.train, batch_size, settings["seed"])


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


def choose_directory(settings, workers):
    """The folder of the run; of several workers only the first one writes there."""
    from trainloop.runs.directory import RunDirectory, UnwrittenDirectory

    if workers.index > 0:
        return UnwrittenDirectory(settings["run_dir"])
    return RunDirectory(settings["run_dir"], settings["overwrite"], settings["resume"])


def make_loop(settings, parts, optimizer, hooks):
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


def make_hooks(settings, directory):
    """Logs first, and the checkpoint last: it is to have everything."""
    import trainloop as tl

    minutes, steps = settings["checkpoint_minutes"], settings["checkpoint_steps"]
    return [
        tl.MetricsFile(directory.metrics),
        *([tl.TensorBoardFile(directory.tensorboard)] if settings["tensorboard"] else []),
        *([] if settings["quiet"] else [make_display()]),
        *make_endings(settings),
        *([tl.LayerNorms()] if settings["layer_norms"] else []),
        tl.SaveCheckpoint(directory.checkpoints, steps, minutes, settings["keep"], settings["keep_best"]),
    ]


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


def make_endings(settings):
    from trainloop.hooks.stopping import StopWhen

    limits = [settings[name] for name in ("f_target", "max_seconds", "max_evaluations")]
    return [StopWhen(*limits)] if any(limit is not None for limit in limits) else []


def make_display():
    from rich.console import Console

    from trainloop.hooks.display import LiveDisplay, PlainLines

    console = Console()
    return LiveDisplay(console) if console.is_interactive else PlainLines(echo)


def with_defaults_for(data, settings):
    """The settings with a goal, a model and batches that fit the data, and a folder named by all of them."""
    import trainloop as tl
    from trainloop.runs import words
    from trainloop.runs.assembly import DEFAULT_MODELS
    from trainloop.runs.directory import fresh_path

    if settings["then"] and settings["epochs"] is None:
        settings = {**settings, "then": words.with_last_steps(settings["then"], DEFAULT_STEPS)}
    if isinstance(data, tl.Points):
        settings = with_defaults_for_points(settings)
    else:
        model = settings["model"] or DEFAULT_MODELS[data.kind]
        batch_size = settings["batch_size"] or min(DEFAULT_BATCH_SIZE, len(data.x_train))
        endless = settings["epochs"] is None and settings["steps"] is None
        epochs = DEFAULT_EPOCHS if endless else settings["epochs"]
        settings = {**settings, "model": model, "batch_size": batch_size, "epochs": epochs}
    optimizers = [one.optimizer for one in words.phases(settings)]
    folder = settings["run_dir"] or fresh_path(settings["model"], settings["dataset"], *optimizers)
    return {**settings, "run_dir": folder}


def with_defaults_for_points(settings):
    """The settings with a number of steps. Raises for what only epochs have, and for sizes of batches."""
    instead = {"epochs": "give --steps", "keep_best": "give --checkpoint-steps", "batch_size": "give it to tl.Points"}
    for name, advice in instead.items():
        if settings[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for data with epochs, and points of residuals have none; {advice}")
    return {**settings, "steps": settings["steps"] or DEFAULT_STEPS}


def do_run(settings, directory, loop, batches, test, resumed_at):
    import trainloop as tl
    from trainloop.cli import ending
    from trainloop.hooks.metrics_file import append_test
    from trainloop.runs import words
    from trainloop.runs.directory import command_to_resume, write_results
    from trainloop.runs.signals import StopOnSignals

    tell = echo if loop.is_chief else lambda line: None
    heard = loop.is_chief and not settings["quiet"]
    say = echo if heard else lambda line: None
    say_text = echo_text if heard else lambda text: None
    title = printable(f"{settings['model']} on {settings['dataset']} with {words.names(words.phases(settings))}")
    n = loop.optimizer.layout.size
    samples = "points" if test is None else "training samples"
    say_text(f"{title}: n = {n:,} parameters, {batches.size:,} {samples}, files in {directory.path}")
    say(loop.optimizer.memory_plan(n, loop.optimizer.layout.dtype))
    if settings["resume"]:
        nothing = f"nothing to continue in {directory.path}: from the beginning"
        say(nothing if resumed_at is None else f"goes on after step {resumed_at}")
    failure = None
    with StopOnSignals(loop.stop) as signals:
        try:
            # Those of phases are their own. The display is a hook.
            steps = None if settings["then"] else settings["steps"]
            goal = {"until_epoch": settings["epochs"], "until_step": steps}
            result = loop.run(batches, **goal, validation_data=test, verbose=0)
        except tl.TrainingError as error:
            result, failure = error.result, error
    if signals.received and failure is None:
        tell(f"Stopped after step {result.step}. Continue with: {command_to_resume(sys.argv, directory.path)}")
        sys.exit(signals.exit_code)
    if loop.optimizer.best_point() is not None:
        loop.optimizer.restore_best()  # by all workers, which measure it together below
    if loop.is_chief:
        missing = write_results(directory, loop, result, title, resumed=resumed_at is not None)
        if missing:
            echo(missing, err=True)
    if failure is not None:
        raise click.ClickException(str(failure))
    measured = loop.evaluate(batches if test is None else test)
    if test is not None and loop.is_chief:
        try:
            append_test(directory.metrics, measured)
        except OSError as error:
            echo(f"{directory.metrics} lacks the test: {in_one_line(error)}", err=True)
    tell(ending.result_line(measured, result.seconds, "" if test is None else "test "))
    if heard:
        ending.say_what_next(directory, result, sys.argv)


def _first_line(documented):
    return documented.__doc__.strip().splitlines()[0]
