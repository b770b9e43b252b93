"""Kill training runs and damage their files, and count what is survived.

    python scripts/faults.py
    python scripts/faults.py --short
    python scripts/faults.py --only disk --seed 1

A run survives a kill when it ends with the same weights, the same state of the optimizer and the same metrics.jsonl as
one that was not disturbed. The model has BatchNormalization and dropout, the data are shuffled. It survives another
fault when what that one expects is so: it goes on, or ends with one line that names the cause, and nothing is lost.
"""

import os
import pathlib
import random
import sys
import tempfile

import click

from trainloop.cli.common import as_help


@click.command(help=as_help(__doc__))
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments.")
@click.option("--short", is_flag=True, help="Every fourth fault and a few kills.")
@click.option("--only", metavar="WORD", default="", help="Only those with this in their names.")
def faults(seed, short, only):
    # Every run is a fork of this process, which imports TensorFlow and never uses it: threads do not survive a fork.
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    from injected import FAULTS, checkpoints, disks, kills, runs, strangers, training, workers  # noqa: F401

    import trainloop.public  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "saved").mkdir()
        runs.in_a_process(runs.make_saved, folder / "saved")
        killed = do_kills(folder, kills.SHORT if short else kills.KINDS, only, random.Random(seed))
        names = [name for name in list(FAULTS)[:: 4 if short else 1] if only in name]
        survived = [name for name in names if do_fault(folder / name, FAULTS[name])]
    click.echo(f"kills survived: {killed[0]} of {killed[1]}; faults survived: {len(survived)} of {len(names)}")
    sys.exit(0 if killed[0] == killed[1] and len(survived) == len(names) else 1)


def do_kills(folder, kinds, only, moments):
    """(kills survived, kills)."""
    tried = survived = 0
    for name, (function, wanted) in kinds.items():
        if only not in name:
            continue
        equal, where = function(folder / name.replace(" ", "_"), wanted, moments)
        click.echo(f"{name:<18} killed {where}: {'equal' if equal else 'DIFFERENT'}")
        tried, survived = tried + wanted, survived + wanted * equal
    return survived, tried


def do_fault(folder, function):
    """Whether a fault was survived."""
    from injected.runs import in_a_process

    folder.mkdir()
    survived = in_a_process(function, folder) == 0
    click.echo(f"{folder.name.replace('_', ' '):<60} {'survived' if survived else 'NOT SURVIVED'}")
    return survived


if __name__ == "__main__":
    faults()
