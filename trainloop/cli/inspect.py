"""Look at the loss around the weights that a run has reached, and write a page of it.

    trainloop inspect runs/mine
    trainloop inspect runs/mine --kind ggn --top 10 --samples 5000 --output look.html

The page has the largest eigenvalues of a curvature matrix and the density of all, the loss along the first eigenvectors
and along the optimizer's next step, and norms by layer. The run's folder is read and stays as it is.
"""

import pathlib

import click

from trainloop.checks import printable
from trainloop.cli.common import as_help, blaming_user_code, echo, import_tensorflow, in_one_line
from trainloop.cli.recorded import name_code, recorded
from trainloop.cli.train import train


@click.command(help=as_help(__doc__))
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path))
@click.option(
    "--kind",
    type=click.Choice(["hessian", "ggn", "fisher", "empirical_fisher"]),
    default="hessian",
    show_default=True,
    help="Which matrix.",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of eigenvalues.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=2000, show_default=True, help="Of the training data, at most."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    default="inspected.html",
    show_default=True,
    help="The page.",
)
def inspect(run, kind, top, samples, seed, output):
    import_tensorflow()
    try:
        look_at = prepare(run, kind, samples, seed)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise click.UsageError(in_one_line(error)) from error
    with blaming_user_code():
        text = look_at(top)
    output.write_text(text, encoding="utf-8")
    echo(f"written: {output}")


def prepare(run, kind, samples, seed):
    """Everything that can be wrong: a function of k that looks, and returns the text of the page."""
    import trainloop as tl
    from trainloop.cli import building
    from trainloop.inspecting import findings
    from trainloop.inspecting.page import page
    from trainloop.inspecting.run import sample_of, stand_where_it_ended
    from trainloop.runs import phases, specs

    of = recorded(click.Context(train), run / "config.json")
    settings = {**of.settings, "quiet": True}
    name_code(of, settings, {})
    building.choose_precision(settings["dtype"])
    parts, asked = building.assembled(settings), specs.phases(settings)
    batches = building.batches_of(parts, settings)
    optimizer = building.phases_of(settings, phases.optimizers(asked), batches)
    loop = building.make_loop(settings, parts, optimizer, hooks=[])
    stands = stand_where_it_ended(loop, run)
    data = sample_of(parts.train, samples, seed)
    terms = {name: getattr(parts, name) for name in ("loss_fn", "residuals", "loss_weights")}
    operator = tl.curvature(parts.model, parts.loss, data=data, kind=kind, **terms)
    title = printable(f"{settings['model']} on {settings['dataset']} with {specs.names(asked)}")
    used = (
        "all points" if isinstance(data, tl.Points) else f"{len(data[0]):,} training samples, layers in inference mode"
    )
    notes = {
        "run": str(run),
        "weights": stands,
        "matrix": f"{kind}, {operator.shape[0]:,} x {operator.shape[0]:,}",
        "data": used,
    }

    def look_at(k):
        found = findings.look(operator, loop.inspect(batches), k, seed, echo)
        estimate = operator.trace(30, seed)
        more = {
            "sharpness": f"{found.eigenvalues[0]:.4g}",
            "trace": f"{estimate.value:.4g} ± {estimate.standard_error:.2g}",
        }
        return page(found, title, {**notes, **more, "loss": f"{found.lines[0].losses[len(found.lines[0].t) // 2]:.6g}"})

    return look_at
