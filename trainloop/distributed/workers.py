"""Several processes or devices that train one model together: how they meet, agree, and notice that one is lost.

`TF_CONFIG` says who takes part, as everywhere in TensorFlow:

    {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}

Every process runs the same program on the same data. The first one, the chief, writes files. Between two blocks of
steps the workers exchange a few numbers (`Workers.exchange`), because each has a clock and signals of its own: how long
the next block is, whether one of them was asked to stop, and sums over what must be the same bits on all of them.

A worker that dies resets its connections, which the others see at once; one that does not answer is waited for as long
the `timeout_seconds` of `connect_workers`.
"""

import contextlib
import faulthandler
import functools
import hashlib
import json
import os
import re
import socket
import sys
import time

import numpy as np
import tensorflow as tf

from trainloop import checks

# Bytes that each worker can say in one exchange.
_ROOM = 4096

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


class WorkersError(RuntimeError):
    """The workers do not agree, or one is lost. What was trained is in the last checkpoint.

    A process that ends after this in the usual way may wait for others that wait for it: programs should end with
    `os._exit`.

    Examples:
        >>> try:
        ...     result = TrainLoop(model, Adam(), loss).run((x, y), steps=2)
        ... except WorkersError as error:
        ...     logging.error("%s", error)
        ...     os._exit(1)
    """


def connect_workers(timeout_seconds: float = 60) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Meet the other workers of `TF_CONFIG`. Call it before anything else is done with TensorFlow.

    Args:
        timeout_seconds: how long to wait for another worker, now and in every all-reduce. Longer than what hooks do
            between two blocks, and than a checkpoint takes to be written. Where one dies after it was reached and
            before it is connected, the process ends with "Timeout" and exit code 1, because TensorFlow would wait.

    Returns:
        `tf.distribute.MultiWorkerMirroredStrategy`. Make the model in its scope.

    Raises:
        ValueError: there is no `TF_CONFIG`, or something is missing in it.
        WorkersError: a worker cannot be reached.

    Examples:
        >>> if os.environ.get("TF_CONFIG"):
        ...     with connect_workers().scope():
        ...         model = lenet5()
    """
    timeout_seconds = checks.real("timeout_seconds", timeout_seconds, above=0)
    addresses, own = _addresses()
    _wait_for(addresses, own, timeout_seconds)
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout_seconds)
    with _ending_after(timeout_seconds):
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


class Workers:
    """The processes of a strategy; one for a `MirroredStrategy`.

    Args:
        strategy: of `tf.distribute`.

    Attributes:
        count: how many there are.
        index: which one this is; 0 is the chief.
    """

    def __init__(self, strategy):
        self._strategy, resolver = strategy, getattr(strategy, "cluster_resolver", None)
        cluster = resolver.cluster_spec().as_dict() if resolver else {}
        tasks = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
        self.count = max(1, len(tasks))
        self.index = tasks.index((resolver.task_type, resolver.task_id)) if len(tasks) > 1 else 0

    def exchange(self, said):
        """What every worker says at this point, in the order of the workers.

        Args:
            said: dict, JSON-able.

        Returns:
            list of dicts.
        """
        if self.count == 1:
            return [said]
        text = json.dumps(said).encode()
        if len(text) > _ROOM:
            raise ValueError(f"workers exchange at most {_ROOM} bytes, received {len(text)}")
        rows = np.zeros([self.count, _ROOM], np.int32)
        rows[self.index, : len(text)] = np.frombuffer(text, np.uint8)
        with self.watched():
            rows = _sum_of_workers(self._strategy)(tf.constant(rows)).numpy()
        return [json.loads(bytes(row[row > 0].astype(np.uint8))) for row in rows]

    def compare(self, what, facts):
        """Make sure that a dict of facts is the same on all workers.

        Args:
            what: they are facts of, for the message.
            facts: dict, JSON-able.

        Raises:
            WorkersError: on every worker, with what differs.
        """
        texts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in facts.items()}
        # Long texts as a digest: enough to see that they differ.
        short = {name: t if len(t) <= 40 else _digest(t) for name, t in texts.items()}
        if len(json.dumps(short)) > _ROOM:
            short = {"all": _digest(json.dumps(short))}
        said = self.exchange(short)
        for i, other in enumerate(said):
            names = [name for name in {**said[0], **other} if said[0].get(name) != other.get(name)]
            if names:
                listing = "; ".join(f"{n} is {said[0].get(n)} there and {other.get(n)} here" for n in names[:4])
                raise WorkersError(
                    f"workers 0 and {i} have different {what}, seen from worker {i}: {listing}; start all of them with "
                    "the same program, arguments and data"
                )

    @contextlib.contextmanager
    def watched(self):
        """Errors of TensorFlow inside mean that a worker is lost, where there are several.

        Raises:
            WorkersError: in place of them.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1 or not isinstance(error, _LOST) or not _is_of_collectives(error):
                raise
            raise WorkersError(
                "another worker has died, does not answer within the time-out, or runs a different program "
                f"({_reason(error)}); end all of them and start them again, with the last checkpoint if there is one"
            ) from error


@functools.cache
def _sum_of_workers(strategy):
    """Compiled: the sum of an integer tensor over the workers of a strategy."""

    def total(mine):
        said = iter([mine])  # by the first replica of this worker only
        each = strategy.experimental_distribute_values_from_function(lambda _: next(said, tf.zeros_like(mine)))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(each,)), axis=None)

    return tf.function(total, autograph=False)


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.InternalError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnknownError,
)


def _is_of_collectives(error):
    text = str(error)
    return any(word in text for word in ("ollective", "GRPC", "grpc", "/job:worker", "/job:chief"))


def _reason(error):
    """The line of a message of TensorFlow that tells something; places in the graph do not."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if re.search("aborted|timed out|crashed|reset by|nstance|navailable", line)]
    return (told or [type(error).__name__])[0][:200]


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _addresses():
    """(address of every worker, which of them is this one) of TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        raise ValueError(f"there is no TF_CONFIG, which says where the workers are; set it to {_EXAMPLE}")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG is not JSON ({error}); expected {_EXAMPLE}, received {text[:100]!r}") from error
    try:
        cluster, task = config["cluster"], config["task"]
        tasks = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
        own = tasks.index((task["type"], int(task["index"])))
        addresses = [cluster[kind][i] for kind, i in tasks]
        named = [(host, int(port)) for host, _, port in (address.rpartition(":") for address in addresses)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG needs a cluster of workers (host:port each) and this one's task among them, like {_EXAMPLE}; "
            f"received {text[:200]!r}"
        ) from error
    return named, own


def _wait_for(addresses, own, seconds):
    """Listen where this worker will be until all others are reached.

    TensorFlow itself would wait for them without an end, and nothing of Python would run meanwhile.
    """
    missing = {i: address for i, address in enumerate(addresses) if i != own}
    until = time.monotonic() + seconds
    try:
        here = socket.create_server(("", addresses[own][1]), backlog=len(addresses))
    except OSError as error:
        raise WorkersError(f"port {addresses[own][1]} of worker {own} in TF_CONFIG cannot be used: {error}") from error
    with here:
        while missing:
            missing = {i: address for i, address in missing.items() if not _answers(address)}
            if missing and time.monotonic() > until:
                listing = ", ".join(f"worker {i} at {host}:{port}" for i, (host, port) in missing.items())
                raise WorkersError(f"not reached within {seconds:g} seconds: {listing}; start it, or correct TF_CONFIG")
            time.sleep(0.1 if missing else 0)


@contextlib.contextmanager
def _ending_after(seconds):
    """Inside, TensorFlow may wait without an end for a worker that was reached and has died since.

    Nothing of Python runs meanwhile, so no exception can tell. The process ends with the place where it waits.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _answers(address):
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def choose_strategy(devices=None):
    """The strategy to make a model under. Call it before anything else is done with TensorFlow.

    Args:
        devices: how many of this machine: GPUs where it has any, else its processor, cut into as many devices. None for
            one, or for the workers of `TF_CONFIG` where that is set; each worker uses all GPUs of its machine.

    Returns:
        a `tf.distribute` strategy, or None for a single device.

    Raises:
        ValueError: fewer GPUs than that, or both ways at once.
        WorkersError: see `connect_workers`.
    """
    if os.environ.get("TF_CONFIG"):
        if devices is not None:
            raise ValueError("TF_CONFIG is set, where each worker uses all its GPUs; leave out devices, or unset it")
        return connect_workers()
    if devices is None or checks.integer("devices", devices, at_least=1) == 1:
        return None
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if devices > gpus:
            raise ValueError(f"devices={devices} are more than the {gpus} GPUs of this machine; ask for fewer")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices)])
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
