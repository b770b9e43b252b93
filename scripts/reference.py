"""The reference of the public names as web pages, from their docstrings and hints, by pdoc.

    python scripts/reference.py
    python scripts/reference.py --output build/reference

Every warning is an error: where pdoc does not understand a docstring or a hint there are no pages.
"""

import inspect
import operator
import pathlib
import sys
import warnings

import click

from trainloop.cli.common import as_help, import_tensorflow, run_main

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Beside what the package itself names: the bases of all methods, and words that docstrings refer to.
MODULES = (
    "trainloop",
    "trainloop.optimizer.base",
    "trainloop.optimizer.wrapper",
    "trainloop.matrices.storage_spec",
    "trainloop.loop.termination",
)

# Classes of others. By itself a page says in which private module they are made.
OTHERS = (
    *("tf.Tensor", "tf.Variable", "tf.IndexedSlices", "tf.DType", "tf.data.Dataset"),
    *("keras.Model", "keras.Variable", "keras.losses.Loss", "keras.metrics.Metric", "keras.metrics.Mean"),
    "keras.optimizers.schedules.LearningRateSchedule",
)


def give_public_names(**packages):
    """Have the classes of others go by the names under which everybody imports them."""
    for name in OTHERS:
        package, _, path = name.partition(".")
        cls = operator.attrgetter(path)(packages[package])
        cls.__module__, _, cls.__qualname__ = name.rpartition(".")


def add_equations(method):
    """Put the equations, which stand at the top of a method's file, behind the first sentence of its class."""
    first, _, rest = inspect.cleandoc(method.__doc__).partition("\n\n")
    equations = sys.modules[method.__module__].__doc__.partition("\n\n")[2]
    method.__doc__ = f"{first}\n\n{equations}\n\n{rest}"


@click.command(help=as_help(__doc__))
@click.option("--output", default="build/reference", show_default=True, help="Folder for the pages.")
def main(output):
    import_tensorflow()
    try:
        import pdoc
    except ImportError as error:
        raise click.ClickException("pdoc is not installed; pip install '.[dev]' brings it") from error
    import keras
    import tensorflow as tf

    import trainloop as tl

    for name in tl.plots.__all__:  # they load Matplotlib when they are asked for
        getattr(tl.plots, name)
    warnings.simplefilter("error")  # from here on: TensorFlow has some of its own
    warnings.filterwarnings("ignore", "'trainloop' may refer to either")  # the installed package, as in every script
    give_public_names(keras=keras, tf=tf)
    for method in (tl.ALGORITHMS | tl.WRAPPERS).values():
        add_equations(method)
    pdoc.render.configure(docformat="google", show_source=False, template_directory=ROOT / "docs" / "reference")
    pdoc.pdoc(*MODULES, output_directory=pathlib.Path(output))
    click.echo(f"{output}/trainloop.html")


if __name__ == "__main__":
    run_main(main)
