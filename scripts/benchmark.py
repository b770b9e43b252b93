"""Measure trainloop against what it replaces, side by side, on this machine.

python scripts/benchmark.py loop --dataset mnist
python scripts/benchmark.py evaluations
python scripts/benchmark.py flatten
python scripts/benchmark.py extras --dataset mnist
python scripts/benchmark.py looking --dataset mnist
python scripts/benchmark.py startup
python scripts/benchmark.py one-batch
python scripts/benchmark.py minimize
python scripts/benchmark.py closure
python scripts/benchmark.py least-squares
python scripts/benchmark.py examples
python scripts/benchmark.py conflict
python scripts/benchmark.py curvature
python scripts/benchmark.py pinn --quick
python scripts/benchmark.py fit --quick
python scripts/benchmark.py shared-matrix
python scripts/benchmark.py checkpoint save
python scripts/launch.py --workers 2 -- scripts/benchmark.py allreduce

What is not installed is named and left out. Ratios are what to look at: seconds belong to a machine.
"""

import click

from benchmarks.allreduce import allreduce
from benchmarks.checkpoint import checkpoint
from benchmarks.closure import closure
from benchmarks.conflict import conflict
from benchmarks.curvature import curvature
from benchmarks.evaluations import evaluations
from benchmarks.examples import examples
from benchmarks.extras import extras, looking, startup
from benchmarks.flatten import flatten
from benchmarks.least_squares import least_squares
from benchmarks.loop import loop
from benchmarks.matrix import shared_matrix
from benchmarks.minimize import minimize
from benchmarks.one_batch import one_batch
from benchmarks.pinn import fit, pinn
from trainloop.cli.common import as_help


@click.group(help=as_help(__doc__))
def benchmark():
    """See the top of this file."""


for command in (
    loop,
    evaluations,
    flatten,
    extras,
    looking,
    startup,
    one_batch,
    minimize,
    closure,
    least_squares,
    examples,
    conflict,
    curvature,
    pinn,
    fit,
    shared_matrix,
    checkpoint,
    allreduce,
):
    benchmark.add_command(command)


if __name__ == "__main__":
    benchmark()
