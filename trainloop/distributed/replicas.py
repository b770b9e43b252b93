"""Several devices, each with a copy of the model: what is the same on all of them, and the one way numbers meet.

    run on each     a function of that replica's part of the batch -> tensors
    all-reduce      their sum, end to end in one vector, which every replica gets

Nothing else goes over the wire in a step. `Replicas` is that much of a `tf.distribute` strategy, and counts it.

A batch of b samples is cut into one part per replica, in its order: the first b mod R of R replicas have one sample
more than the others. A replica that is left without one computes on the last sample of the batch and adds zeros, so
that everything stays defined.
"""

import functools
import threading

import tensorflow as tf

from trainloop.vectors.layout import FlatLayout


class Replicas:
    """The replicas of a strategy, more than one. Used outside of `strategy.run`, where the block of steps is.

    Args:
        strategy: a `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`.

    Attributes:
        strategy: as given.
        count: R.
    """

    def __init__(self, strategy):
        self.strategy, self.count = strategy, strategy.num_replicas_in_sync
        self._traffic = tf.Variable(tf.zeros([2], tf.int64), trainable=False, name="traffic")

    @property
    def all_reduces(self):
        """How many all-reduces there were so far."""
        return int(self._traffic[0])

    @property
    def numbers(self):
        """How many numbers were summed in them."""
        return int(self._traffic[1])

    def distribute(self, make):
        """What `make(r)` makes for every replica r of this process: an argument for `sum`."""
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: make(context.replica_id_in_sync_group)
        )

    def sum(self, one, arguments, dtype, check=lambda graph: None, variables=()):
        """Run a function on every replica and sum what it returns, with one all-reduce.

        Args:
            one: function of the values of `arguments` on that replica -> (structure of floating tensors of known
                shapes, structure of other tensors that are the same on all replicas). It is traced once, outside of the
                strategy: Keras's losses would divide themselves by the number of replicas where they see one.
            arguments: tuple of what came from `distribute` and of tensors that are the same on all replicas.
            dtype: of the vector that is sent.
            check: function of the graph of `one`, which may raise.
            variables: those with copies that `one` uses. The trace knows the first copy; every replica uses its own.

        Returns:
            (the sums in the structure, shapes and dtypes of the first, the second).
        """
        like = []  # what `one` returned: only the structure is used

        def packed(*values):
            tensors, same = one(*values)
            like.append(tensors)
            return _layout(tensors, dtype).pack(tf.nest.flatten(tensors)), same

        specs = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), self._first(arguments))
        traced = without_strategy(tf.function(packed, autograph=False).get_concrete_function, *specs)
        check(traced.graph)
        _use_local_copies(traced, variables)
        vectors, same = self.strategy.run(traced, args=arguments)
        vector = self.strategy.reduce(tf.distribute.ReduceOp.SUM, vectors, axis=None)
        self._traffic.assign_add([1, vector.shape[0]])
        pieces, flat = _layout(like[0], dtype).unpack(vector), tf.nest.flatten(like[0])
        sums = [tf.cast(piece, tensor.dtype) for piece, tensor in zip(pieces, flat, strict=True)]
        return tf.nest.pack_sequence_as(like[0], sums), self._first(same)

    def _first(self, values):
        """The values on the first replica of this process."""
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], values)


class Share:
    """The part of a batch that one replica has.

    Args:
        index: of the replica.
        count: of replicas.
    """

    def __init__(self, index, count):
        self._index, self._count = index, count

    def __call__(self, samples):
        """(begin int32 [], end int32 [], whether it has any bool []) of so many samples, at least one."""
        each, rest = samples // self._count, samples % self._count
        begin, end = (i * each + tf.minimum(i, rest) for i in (self._index, self._index + 1))
        here = tf.minimum(begin, samples - 1)
        return here, tf.maximum(end, here + 1), end > begin


def of(model):
    """The `Replicas` of the strategy that a model was made under, else of the one whose scope this is; None for one.

    Raises:
        ValueError: a strategy that has no copies of the model to keep equal.
    """
    owned = [getattr(getattr(v, "value", v), "distribute_strategy", None) for v in model.trainable_variables]
    strategy = next((found for found in owned if found is not None), None) or tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return None
    if not isinstance(strategy, (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)):
        raise ValueError(
            f"{type(strategy).__name__} is not supported; use tf.distribute.MirroredStrategy for the devices of one "
            "machine, or MultiWorkerMirroredStrategy for several processes or machines"
        )
    return without_strategy(Replicas, strategy)


def without_strategy(function, *arguments):
    """function(*arguments) outside of every strategy's scope: variables that it makes exist once in this process.

    A scope can be left only by its end. It holds for the thread that entered it, so another one is outside.
    """
    if not tf.distribute.has_strategy() and tf.executing_eagerly():
        return function(*arguments)
    outcome = []

    def call():
        try:
            outcome.append((function(*arguments), None))
        except Exception as error:  # handed on, whatever it is
            outcome.append((None, error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def _use_local_copies(traced, variables):
    """Let a traced function use, where it is called, the copies there."""
    local = {id(copy.handle): functools.partial(getattr, v, "handle") for v in variables for copy in v.values}
    captures = [local.get(id(outside), outside) for outside, _ in traced.graph.captures]
    traced.set_external_captures(captures)  # those that can be called are called when the function is


def _layout(tensors, dtype):
    flat = tf.nest.flatten(tensors)
    return FlatLayout(tuple(map(str, range(len(flat)))), tuple(tensor.shape for tensor in flat), dtype)
