"""K steps in one compiled call.

The engine knows nothing of training: it repeats a function `one_step(batch) -> (status, row)` over the next K
batches of a feed, where `batch` is a `Batch`, until a status other than RUNNING or the end of the data, and brings
back one row of numbers per step.

K is a tensor: its value neither causes a trace nor changes a result. What does cause a trace is a new kind of
feed, or batches of a new shape. A second trace for the same kind is reported with what changed, because it takes as
long as the first.

For looking closely the same loop also runs as plain Python, without a trace.
"""

import contextlib
import functools
import logging
import time
import typing

import numpy as np
import tensorflow as tf

from trainloop.distributed.replicas import without_strategy
from trainloop.status import Status
from trainloop.vectors import xla

_LOG = logging.getLogger("trainloop")

# XLA needs to know how many rows the log of a block has room for.
_JIT_ROWS = 4096

# Otherwise room is made for as many as are asked for, which may be any number.
_MOST_ROWS = 2**16


class Block(typing.NamedTuple):
    """What one compiled call brought back.

    `status` says how its last step ended, `rows` is float64 [steps, columns], `results` was read at its end.

    """

    status: Status
    rows: np.ndarray
    results: dict
    seconds: float


class Engine:
    """A function of one batch, compiled to run over many.

    Args:
        one_step: function (batch) -> (status int32 [], row float64 [columns]), with whatever side effects on
            variables.
        columns: names of the entries of a row; they may be completed before the first call.
        results: function without arguments, called at the end of a block: a dict of scalar tensors.
        jit_compile: compile with XLA; feeds must then be static.
        eager: compile nothing.
        begin: function without arguments, called when a block begins; None for nothing.
    """

    def __init__(self, one_step, columns, results, jit_compile=False, eager=False, begin=None):
        self._one_step, self._columns, self._results, self._begin = one_step, columns, results, begin
        self._jit_compile, self._eager = jit_compile, eager
        self._compiled, self._seen = {}, {}
        self.most_steps = _JIT_ROWS if jit_compile else _MOST_ROWS
        self.traces = 0

    def __call__(self, feed, k):
        """Run up to k steps on the feed's next batches. The feed's position is the caller's to advance.

        Args:
            feed: a `Feed`.
            k: a positive int.

        Returns:
            `Block`. Fewer than k rows mean that the data ended or that the last row's step ended the block.
        """
        began = time.perf_counter()
        call = functools.partial(self._in_python, type(feed)) if self._eager else self._function(type(feed))
        # The caller may be inside of the scope of a strategy with one replica, where a tape gives no gradients.
        status, rows, results = without_strategy(call, feed.source(), tf.constant(k))
        rows = np.asarray(rows)  # waits for the block
        results = {name: float(value) for name, value in results.items()}
        return Block(Status(int(status)), rows, results, time.perf_counter() - began)

    def _in_python(self, feed_kind, source, k):
        """What `_loop` does. The source was made outside: datasets have functions that must not run as Python."""
        status, rows = Status.RUNNING, []
        with xla.running():
            if self._begin:
                self._begin()
            while len(rows) < k and status == Status.RUNNING:
                more, batch = feed_kind.batch(source, len(rows))
                if not more:
                    break
                status, row = self._one_step(batch)
                rows.append(row.numpy())
            return status, np.reshape(rows, [-1, len(self._columns)]), self._results()

    def _function(self, feed_kind):
        if feed_kind not in self._compiled:
            self._compiled[feed_kind] = tf.function(
                functools.partial(self._steps, feed_kind), autograph=False, jit_compile=self._jit_compile
            )
        return self._compiled[feed_kind]

    def _steps(self, feed_kind, source, k):
        self.traces += 1
        self._report(feed_kind, feed_kind.signature(source))
        with xla.tracing() if self._jit_compile else contextlib.nullcontext():
            return self._loop(feed_kind, source, k)

    def _report(self, feed_kind, signature):
        before = self._seen.setdefault(feed_kind, signature)
        changed = [f"{name} {before.get(name)} -> {now}" for name, now in signature.items() if now != before.get(name)]
        if changed:
            _LOG.warning("steps are traced again, which takes as long as the first time: %s", ", ".join(changed))

    def _loop(self, feed_kind, source, k):
        if self._begin:
            self._begin()
        rows = tf.TensorArray(tf.float64, _JIT_ROWS if self._jit_compile else k, element_shape=[len(self._columns)])

        def wanted(i, status, more, _):
            return (i < k) & tf.equal(status, Status.RUNNING) & more

        def step(i, _status, _more, rows):
            status, row, more = self._step_if_any(*feed_kind.batch(source, i))
            return i + tf.cast(more, tf.int32), status, more, rows.write(i, row)

        start = tf.constant(0), tf.constant(Status.RUNNING, tf.int32), tf.constant(True), rows
        taken, status, _, rows = tf.while_loop(wanted, step, start)
        return status, rows.stack()[:taken], self._results()

    def _step_if_any(self, more, batch):
        """A step on the batch, or a blank row when a dataset turns out to have ended."""
        if more is True:
            return *self._one_step(batch), tf.constant(True)
        blank = (
            tf.constant(Status.RUNNING, tf.int32),
            tf.zeros([len(self._columns)], tf.float64),
            tf.constant(False),
        )
        return tf.cond(more, lambda: (*self._one_step(batch), tf.constant(True)), lambda: blank)
