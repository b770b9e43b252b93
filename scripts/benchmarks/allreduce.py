"""Time all-reduces between workers: what a number costs, and what a message.

    python scripts/launch.py --workers 2 -- scripts/benchmark.py allreduce

Run it as one of several workers, with a TF_CONFIG. The first one prints.
"""

import time

import click

from trainloop.cli.common import as_help, import_tensorflow


@click.command(help=as_help(__doc__))
@click.option("--numbers", type=click.IntRange(min=1), multiple=True, default=(1, 10_000, 1_000_000, 10_000_000))
@click.option(
    "--repeats", type=click.IntRange(min=1), default=20, show_default=True, help="All-reduces of each length."
)
def allreduce(numbers, repeats):
    import_tensorflow()
    import tensorflow as tf

    import trainloop as tl

    strategy = tl.connect_workers()

    @tf.function
    def all_reduces(vector, times):
        def one(i, _):
            return i + 1, strategy.reduce("MEAN", strategy.run(tf.identity, args=(vector,)), axis=None)

        return tf.while_loop(lambda i, _: i < times, one, (tf.constant(0), vector))[1]

    for n in numbers:
        vector = tf.ones([n])
        all_reduces(vector, tf.constant(2)).numpy()
        began = time.perf_counter()
        all_reduces(vector, tf.constant(repeats)).numpy()
        seconds = (time.perf_counter() - began) / repeats
        if strategy.cluster_resolver.task_id == 0:
            click.echo(f"{n:>12,} float32 numbers  {1e3 * seconds:8.3f} ms  {4 * n / seconds / 1e6:8.0f} MB/s")
