"""Measure trainloop against what it replaces, side by side, on this machine.

python scripts/benchmark.py loop --dataset mnist
python scripts/benchmark.py flatten
python scripts/benchmark.py extras --dataset mnist
python scripts/benchmark.py looking --dataset mnist
python scripts/benchmark.py startup
python scripts/benchmark.py minimize
python scripts/benchmark.py shared-matrix

What is not installed is named and left out. Ratios are what to look at: seconds belong to a machine.
"""

import click
from benchmark_extras import extras, looking, startup
from benchmark_flatten import flatten
from benchmark_loop import loop
from benchmark_matrix import shared_matrix
from benchmark_minimize import minimize
from command_line import as_help


@click.group(help=as_help(__doc__))
def benchmark():
    """See the top of this file."""


for command in (loop, flatten, extras, looking, startup, minimize, shared_matrix):
    benchmark.add_command(command)


if __name__ == "__main__":
    benchmark()
