"""What the benchmarks share: options, and programs of this folder that run in a process of their own."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import click

HERE = pathlib.Path(__file__).parent

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


def run_program(program, *arguments, **environment):
    """The last line that a program of this folder prints, as JSON."""
    process = start_program(program, *arguments, **environment)
    printed, complaints = process.communicate()
    if process.returncode:
        raise click.ClickException(f"{program} {arguments[0]} failed: {complaints.strip().splitlines()[-1]}")
    return json.loads(printed.splitlines()[-1])


def start_program(program, *arguments, stderr=subprocess.PIPE, **environment):
    """A program of this folder as a process that can be talked to."""
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
    return subprocess.Popen(command, text=True, env=environment, **pipes)
