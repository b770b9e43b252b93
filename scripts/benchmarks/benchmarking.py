"""What the benchmarks share: options, and modules of this folder that run in a process of their own."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import click

_SCRIPTS = pathlib.Path(__file__).resolve().parents[1]

TIMES = {"median": ("median s", ".3f"), "low": ("lowest", ".3f"), "high": ("highest", ".3f")}

repeats_option = click.option(
    "--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Rounds that count."
)
dataset_option = click.option(
    "--dataset", default="mnist", show_default=True, help="Name, .npz file, or folder of IDX files."
)
output_option = click.option(
    "--output", default="benchmarks", show_default=True, help="Folder for the JSON file and the chart."
)


def missing(needs):
    """The names among {name: module} whose module is not installed."""
    return [name for name, module in needs.items() if importlib.util.find_spec(module) is None]


def name_missing(missing):
    if missing:
        click.echo(f"not installed: {', '.join(missing)}")


def run_program(module, *arguments, **environment):
    """The last line that a module of this folder prints when it is run, as JSON."""
    process = start_program(module, *arguments, **environment)
    printed, complaints = process.communicate()
    if process.returncode:
        raise click.ClickException(f"{module} {arguments[0]} failed: {complaints.strip().splitlines()[-1]}")
    return json.loads(printed.splitlines()[-1])


def start_program(module, *arguments, stderr=subprocess.PIPE, **environment):
    """A module of this folder as a process that can be talked to."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    found = os.pathsep.join([str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": found, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
    return subprocess.Popen(command, text=True, env=environment, **pipes)
