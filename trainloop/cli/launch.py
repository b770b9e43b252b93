"""Train with several processes on this machine, each a worker of one run.

    trainloop launch --workers 2 -- trainloop train --epochs 5 --run-dir runs/two
    trainloop launch --workers 2 -- my_program.py --epochs 5

What comes after -- is `trainloop` or a Python program, with its arguments; every process gets a TF_CONFIG that names
all of them. Their lines are shown with the number of the worker in front. When one fails, all are ended. Ctrl-C is
passed on; the second one ends them at once.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import click

from trainloop.cli.common import as_help


@click.command(help=as_help(__doc__), context_settings={"ignore_unknown_options": True})
@click.option("--workers", type=click.IntRange(min=1), metavar="N", default=2, show_default=True, help="Processes.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="X",
    default=10.0,
    show_default=True,
    help="Seconds in which the others may report and end after one has failed.",
)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def launch(workers, grace, program):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = [start(program, addresses, index) for index in range(workers)]
    echoes = [threading.Thread(target=echo, args=pair) for pair in enumerate(processes)]
    for thread in echoes:
        thread.start()
    passing_signals_on(processes)
    code = wait_for(processes, grace)
    for thread in echoes:
        thread.join()
    sys.exit(code)


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def start(program, addresses, index):
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    command = ["-m", *program] if program[0] == "trainloop" else program
    return subprocess.Popen(
        [sys.executable, "-u", *command],
        env={**os.environ, "TF_CONFIG": json.dumps(config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that Ctrl-C reaches them once, through this process
    )


def echo(index, process):
    for line in process.stdout:
        click.echo(f"[{index}] {line.rstrip()}")


def passing_signals_on(processes):
    received = []

    def pass_on(number, _):
        received.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number if len(received) == 1 else signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)


def wait_for(processes, grace):
    """Wait until all have ended, or one has failed, which ends the others: the exit code of the first to fail, or 0."""
    code, until = 0, None
    while any(process.poll() is None for process in processes):
        code = code or next((process.returncode for process in processes if process.poll()), 0)
        if code and until is None:
            until = time.monotonic() + grace
        if until is not None and time.monotonic() > until:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    code = code or next((process.returncode for process in processes if process.returncode), 0)
    return 128 - code if code < 0 else code
