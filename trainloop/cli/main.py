"""Custom training loops for algorithms that need a whole Keras network as one vector.

trainloop train --optimizer lbfgs --batch-size full --epochs 100
trainloop compare adam lbfgs
trainloop inspect runs/mine
trainloop launch --workers 2 -- trainloop train --epochs 5 --run-dir runs/two
"""

import click

from trainloop.cli.common import as_help, run_main
from trainloop.cli.compare import compare
from trainloop.cli.inspect import inspect
from trainloop.cli.launch import launch
from trainloop.cli.train import train
from trainloop.versions import VERSION


@click.group(help=as_help(__doc__), commands=[train, compare, inspect, launch])
@click.version_option(VERSION, message="trainloop %(version)s")
def trainloop():
    """See the top of this file."""


def main():
    """The console command `trainloop`."""
    run_main(trainloop)
