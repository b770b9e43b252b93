"""What there is to choose from, for `trainloop train --list`."""

from trainloop.cli.common import echo


def list_names(name):
    """Print what there is, or what one optimizer takes.

    Args:
        name: of the optimizer, or "all".

    Raises:
        ValueError: there is no such optimizer.
    """
    import trainloop as tl
    from trainloop.runs.plugins import describe

    if name != "all":
        echo(describe(name))
        return
    for title, lines in (
        (
            "data sets (or an .npz file, a folder of IDX files, module:function or file.py:function, which may return "
            "tl.Points for --residuals)",
            tl.DATASETS,
        ),
        ("models (or module:function or file.py:function)", _first_lines(tl.MODELS)),
        ("optimizers (or module:Class, or file.py:Class)", _first_lines(tl.ALGORITHMS)),
        ("wrapper optimizers (-o inner=NAME)", _first_lines(tl.WRAPPERS)),
    ):
        echo(f"{title}:")
        for name, line in lines.items():
            echo(f"  {name:<20}{line}")


def _first_lines(documented):
    return {name: thing.__doc__.strip().splitlines()[0] for name, thing in documented.items()}
