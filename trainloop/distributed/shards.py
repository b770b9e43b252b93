"""Where the parts of something large are, and sums over all parts.

    strategy                         shards             where
    MultiWorkerMirroredStrategy      one per worker     each in a process of its own
    MirroredStrategy                 one per device     all in this process
    none                             one                here
    a number                         so many            all in this process, to try it: no memory is saved

All workers build and run the same operations, so that a sum over processes finds its partners. It costs the same on
all of them, and gives the same bits to all of them: what they decide on it they decide alike.

`WholeArray` presents an array whose parts lie in several processes as one variable, for saving and restoring.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainloop import checks

# What is asked for and counted now, the innermost last. For all threads: variables may be made in one of their own.
_where: list["Shards"] = []
_traffic: list[list] = []


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """k shards, some of them in this process.

    Attributes:
        count: k.
        mine: the numbers, from 0, of those in this process.
        devices: of each of mine; None for the device that TensorFlow would take.
        strategy: that sums over processes; None where all shards are in this one.
    """

    count: int
    mine: tuple
    devices: tuple
    strategy: tf.distribute.Strategy | None = None

    @classmethod
    def here(cls):
        """Those of the innermost `shard_over`, or else of the `tf.distribute` strategy in whose scope this is."""
        return _where[-1] if _where else cls.of(tf.distribute.get_strategy())

    @classmethod
    def of(cls, where):
        """Those of a strategy, or a number of shards in this process.

        Raises:
            ValueError: it is neither, or a strategy of another kind with several replicas.
        """
        if not isinstance(where, tf.distribute.Strategy):
            count = checks.integer("a number of shards, where it is no tf.distribute strategy,", where, at_least=1)
            return cls(count, tuple(range(count)), (None,) * count)
        if isinstance(where, tf.distribute.MultiWorkerMirroredStrategy):
            worker, workers = _place_of_worker(where.cluster_resolver)
            return cls(workers, (worker,), (None,), where if workers > 1 else None)
        if isinstance(where, tf.distribute.MirroredStrategy):
            devices = tuple(where.extended.worker_devices)
            return cls(len(devices), tuple(range(len(devices))), devices)
        if where.num_replicas_in_sync > 1:
            raise ValueError(
                f"shards are sharded over a MirroredStrategy or a MultiWorkerMirroredStrategy, received "
                f"{type(where).__name__}"
            )
        return cls(1, (0,), (None,))

    @property
    def in_words(self):
        """For people: over what something is sharded."""
        here = "here" if len(self.mine) == self.count else f"{len(self.mine)} of them here"
        return f"sharded over {self.count} {'shard' if self.count == 1 else 'shards'}, {here}"

    def on(self, shard):
        """A context whose operations run, and whose variables are, on the device of a shard of mine."""
        device = self.devices[self.mine.index(shard)]
        return contextlib.nullcontext() if device is None else tf.device(device)

    def map(self, function):
        """`function(shard)` for each of mine, on its device."""
        results = []
        for shard in self.mine:
            with self.on(shard):
                results.append(function(shard))
        return results

    def sum(self, partials):
        """The sum over all shards of all processes: one all-reduce.

        Args:
            partials: a tensor for each of mine, of one shape and dtype.
        """
        total = partials[0] if len(partials) == 1 else tf.add_n(partials)
        if self.count == 1:
            return total
        for traffic in _traffic[-1:]:
            traffic.append(Reduction(tuple(total.shape), total.dtype))
        return total if self.strategy is None else _over_processes(self.strategy, total)

    def check_no_scope(self):
        """For whoever makes variables of a part.

        Raises:
            ValueError: a strategy would make a copy of them for every replica.
        """
        if tf.distribute.has_strategy():
            raise ValueError(
                "inside strategy.scope() variables are mirrored, so nothing would be sharded; "
                "build the optimizer outside of strategy.scope(), in trainloop.distributed.shard_over(strategy)"
            )


@contextlib.contextmanager
def shard_over(where: tf.distribute.Strategy | int) -> Iterator[None]:
    """Everything that is made in this context with storage="sharded" has its shards there.

    Args:
        where: a `tf.distribute` strategy, or a number of shards in this process.

    Raises:
        ValueError: see `Shards.of`.

    Examples:
        >>> optimizer = TestGD(storage="sharded")
        >>> with distributed.shard_over(2):
        ...     optimizer.build(model.trainable_variables)
    """
    _where.append(Shards.of(where))
    try:
        yield
    finally:
        _where.pop()


# Its first name.
spread_over = shard_over


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One sum over more than one shard, of tensors of this shape; None in it where only running tells."""

    shape: tuple
    dtype: tf.DType

    @property
    def nbytes(self):
        """Of the tensor, which in a ring of k workers each of them sends 2 (k - 1) / k times."""
        return math.prod(self.shape) * self.dtype.size


@contextlib.contextmanager
def counted() -> Iterator[list["Reduction"]]:
    """A list that gets a `Reduction` for every sum in this context: each when it runs eagerly, or when it is traced.

    Examples:
        >>> with distributed.shard_over(2):
        ...     B = SharedMatrix.identity(10, storage="sharded")
        ...
        >>> with distributed.counted() as sums:
        ...     product = B @ tf.ones([10])
    """
    _traffic.append([])
    try:
        yield _traffic[-1]
    finally:
        _traffic.pop()


def deal(sizes, count):
    """The shard of each of several parts, such that all shards have about as much: the largest part is dealt first.

    Args:
        sizes: of the parts.
        count: number of shards.
    """
    owners, loads = [0] * len(sizes), [0] * count
    for part in sorted(range(len(sizes)), key=lambda part: -sizes[part]):
        owners[part] = loads.index(min(loads))
        loads[owners[part]] += sizes[part]
    return owners


def _place_of_worker(resolver):
    """(number of this worker, number of workers); a chief is the first of them."""
    jobs = resolver.cluster_spec().as_dict() if resolver is not None else {}
    chiefs, workers = (len(jobs.get(job, ())) for job in ("chief", "worker"))
    if chiefs + workers == 0:
        return 0, 1
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0), chiefs + workers


def _over_processes(strategy, tensor):
    replicas = strategy.num_replicas_in_sync // _place_of_worker(strategy.cluster_resolver)[1]

    def part():
        if replicas == 1:
            return tensor
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.where(tf.equal(replica % replicas, 0), tensor, tf.zeros_like(tensor))  # one of this worker's speaks

    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(part), axis=None)


class WholeArray:
    """Presents an array sharded over processes as one variable, for saving and restoring.

    Reading it gathers the pieces, so every process must read it, at the same point of its work; and every process has
    the whole for that moment. Assigning takes from the whole what belongs here.

    Attributes:
        shape: of the whole; None in it where it grows.
        dtype: of the numbers.
        pieces: (place, variable) of each piece in this process; a place is an index of NumPy, `...` for everything.
    """

    def __init__(self, shape, dtype, pieces, shards):
        self.shape, self.dtype = tf.TensorShape(shape), tf.as_dtype(dtype)
        self.pieces, self._shards = pieces, shards

    def numpy(self):
        """The whole, bit for bit."""
        shape = [size if size is not None else int(tf.shape(self.pieces[0][1])[i]) for i, size in enumerate(self.shape)]
        whole = np.zeros(shape, self.dtype.as_numpy_dtype)
        for place, variable in self.pieces:
            whole[place] = variable.numpy()
        if self._shards.strategy is None:
            return whole
        # As integers: sums of numbers would lose the sign of a zero.
        bits = tf.constant(whole.view(f"int{8 * self.dtype.size}").reshape(-1))
        total = _compiled_sum(self._shards, bits.dtype)(bits)
        return total.numpy().view(self.dtype.as_numpy_dtype).reshape(shape)

    def __array__(self, dtype=None, copy=None):
        return self.numpy().astype(dtype or self.dtype.as_numpy_dtype, copy=False)

    def assign(self, value):
        """Take what belongs here of the whole."""
        for place, variable in self.pieces:
            variable.assign(value[place])


def take_part(arrays):
    """Read what has to be read by all, in a process that does not write it: the others wait for its pieces.

    Args:
        arrays: what they write, in the same order: dict of arrays by name, of which `WholeArray`s are read.
    """
    for array in arrays.values():
        if isinstance(array, WholeArray):
            array.numpy()


@functools.lru_cache(maxsize=4)
def _compiled_sum(shards, dtype):
    return tf.function(lambda v: shards.sum([v]), input_signature=[tf.TensorSpec([None], dtype)], autograph=False)
