"""Train a network with an optimizer that works on all of its weights as one vector.

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

import click

from trainloop.cli.common import (
    COUNT,
    POSITIVE,
    BatchSize,
    OptionsBeforeThen,
    PhaseSpecType,
    as_help,
    blaming_user_code,
    echo,
    import_tensorflow,
    in_one_line,
)
from trainloop.cli.defaults import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, DEFAULT_OPTIMIZER, DEFAULT_STEPS
from trainloop.cli.listing import list_names
from trainloop.cli.recorded import chosen, read_config


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
    "--dtype", type=click.Choice(["float32", "float64"]), help="Of weights and data.  [default: that of Keras, float32]"
)
@click.option("--optimizer", default=DEFAULT_OPTIMIZER, show_default=True, help="Name, module:Class or file.py:Class.")
@click.option(
    "-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Argument of the optimizer; repeat it."
)
@click.option("--epochs", **COUNT, help=f"Passes over the data.  [default: {DEFAULT_EPOCHS}]")
@click.option(
    "--steps", **COUNT, help="Steps; with --epochs, whichever comes first. Before --then, those of the first optimizer."
)
@click.option(
    "--then",
    type=PhaseSpecType(),
    multiple=True,
    metavar="METHOD[:KEY=VALUE,...,--steps=N]",
    help="Optimizer that continues where the one before has ended, with its arguments and steps; repeat it.  "
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
@click.option("--steps-per-call", **COUNT, help="Steps per compiled call.  [default: half a second]")
@click.option(
    "--microbatch", **COUNT, help="Take each batch in parts of N samples; the sum is the same, in less memory."
)
@click.option("--jit/--no-jit", default=False, show_default=True, help="Compile whole blocks with XLA.")
@click.option("--devices", **COUNT, help="Train on N GPUs, or parts of the processor, of this machine.")
@click.option("--eager", is_flag=True, help="Compile nothing, so that a debugger works in the optimizer; slow.")
@click.option("--layer-norms", is_flag=True, help="Log norms of weights, gradient and step in every layer.")
@click.option(
    "--deterministic", is_flag=True, help="The same bits in every run on the same machine, at a price in speed."
)
@click.option("--max-seconds", **POSITIVE, help="End after X seconds.")
@click.option("--max-evaluations", **COUNT, help="End after N evaluations of the loss.")
@click.option("--f-target", type=float, metavar="X", help="End when the loss of a batch is at most X.")
@click.option(
    "--on-nonfinite",
    type=click.Choice(["stop", "skip", "rollback"]),
    default="stop",
    show_default=True,
    help="When a step meets NaN or infinity.",
)
@click.option("--checkpoint-minutes", **POSITIVE, default=1.0, show_default=True, help="Save at least that often.")
@click.option("--checkpoint-steps", **COUNT, help="Save after every N-th step too.")
@click.option("--keep", **COUNT, default=3, show_default=True, help="Last checkpoints.")
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
            list_names(show_list)
            return
        run = prepare(*chosen(ctx, settings))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise click.UsageError(in_one_line(error)) from error
    with blaming_user_code():
        run()


def prepare(settings, check_facts):
    """Build everything, and write files only when nothing is wrong with it.

    Args:
        settings: of all options, by name.
        check_facts: function that raises ValueError where they are not those of the run that is repeated.

    Returns:
        A function without arguments that does the run, or prints what it would be.
    """
    from trainloop.cli import running
    from trainloop.cli.building import build

    built = build(settings, check_facts)
    directory = built.directory
    if settings["dry_run"]:
        text = described(built) if built.loop.is_chief else ""  # one description is enough
        return lambda: text and echo(text)
    config, resume = built.config, settings["resume"]
    step = directory.resume(config, built.loop.restore) if resume else directory.begin(config)

    def run():
        try:
            running.run(built, step)
        finally:
            directory.release()

    return run


def described(built):
    """What a run would be, in words. Raises ValueError where it could not continue the one that is there."""
    from trainloop.runs import dry_run

    built.directory.release()
    if built.settings["resume"]:
        built.directory.check(built.config)
    parts = built.parts
    return dry_run.describe(parts.data, built.batches, parts.model, built.optimizers, built.settings, built.directory)
