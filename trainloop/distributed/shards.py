"""Where the parts of something large are, and sums over all parts.

    strategy                         shards             where
    MultiWorkerMirroredStrategy      one per worker     each in a process of its own
    MirroredStrategy                 one per device     all in this process
    none                             one                here
    a number                         so many            all in this process, to try it: no memory is saved

All workers build and run the same operations, so that a sum over processes finds its partners. It costs the same on
all of them, and gives the same bits to all of them: what they decide on it they decide alike.
"""

import contextlib
import dataclasses
import math

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
    strategy: object = None

    @classmethod
    def here(cls):
        """Those of the innermost `spread_over`, or else of the `tf.distribute` strategy in whose scope this is."""
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
                f"shards are spread over a MirroredStrategy or a MultiWorkerMirroredStrategy, received "
                f"{type(where).__name__}"
            )
        return cls(1, (0,), (None,))

    @property
    def in_words(self):
        """For people: over what something is spread."""
        here = "here" if len(self.mine) == self.count else f"{len(self.mine)} of them here"
        return f"spread over {self.count} {'shard' if self.count == 1 else 'shards'}, {here}"

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

    def refuse_scopes(self):
        """For whoever makes variables of a part.

        Raises:
            ValueError: a strategy would make a copy of them for every replica.
        """
        if tf.distribute.has_strategy():
            raise ValueError(
                "in the scope of a strategy every variable has a copy for every replica, and nothing could be spread; "
                "build the optimizer outside of strategy.scope(), in trainloop.shards.spread_over(strategy)"
            )


# All of it, as one part, on the only device: for what is not spread.
ALONE = Shards(1, (0,), (None,))


@contextlib.contextmanager
def spread_over(where):
    """Everything that is made in this context with storage="sharded" has its shards there.

    Args:
        where: a `tf.distribute` strategy, or a number of shards in this process.

    Raises:
        ValueError: see `Shards.of`.
    """
    _where.append(Shards.of(where))
    try:
        yield
    finally:
        _where.pop()


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
def counted():
    """A list that gets a `Reduction` for every sum in this context: each when it runs eagerly, or when it is traced."""
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
