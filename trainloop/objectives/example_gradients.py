"""Gradients of single samples: e_i [n] of sample i, so that their plain mean is the gradient of the batch.

    e_i = gradient of  N share_i compare({i}) + own({i})        {i}: the batch that has sample i alone
    g = (1/N) sum_i e_i                                         N samples

share_i is by how much sample i counts in the loss of the batch: 1/N where that is a mean over samples (a sample weight
s_i is then inside of compare, and e_i is s_i times the gradient of the sample's loss), s_i / sum_j s_j for a mean over
sample weights, and 1 for a sum. own are the losses of the model's layers, such as regularizers.

One vectorised pass (`tf.vectorized_map`) takes all samples of a chunk. Its slow part would be the kernels of
convolutions, which TensorFlow takes one after the other. So there the pass gives what goes into a convolution and
the gradient by what comes out of it, and the kernels' gradients are made of these for all samples at once, see
`per_sample_kernels`. The idea is Goodfellow's (2015, arXiv 1510.01799), who has it for dense layers.

Samples that are coupled (batch normalisation in training, contrastive losses) have no gradients of their own. That is
found by an attempt: for the first few samples the mean of the e_i must be the gradient of their batch.
"""

import concurrent.futures
import warnings

import tensorflow as tf

from trainloop import checks
from trainloop.objectives import losses, sample_rows
from trainloop.objectives.batch_loss import times
from trainloop.objectives.per_sample_kernels import KernelGradient
from trainloop.objectives.placement import Copies
from trainloop.objectives.rows import Chunks, in_chunks
from trainloop.vectors import linalg

# How often the rows of a chunk are in memory in one pass: by variable, end to end, and what they are made of.
_COPIES = 4

# The attempt may differ by so many units of the last digit of the longest e_i.
_ULPS = 1e3


def gradients(objective, x):
    """The e_i [N, n] of a `ModelObjective` at x [n]."""
    return _in_chunks(objective, x, _joined)


def norms(objective, x):
    """|e_i| [N], with no more than a chunk of e_i at a time."""
    return _in_chunks(objective, x, linalg.row_norms)


def _in_chunks(objective, x, reduce):
    _check_uncoupled(objective)
    with objective.at(x) as sources:
        return sample_rows.in_graph(lambda: _rows(objective, objective.batch, sources, x, reduce))


def _rows(objective, batch, sources, x, reduce):
    """reduce(e_i of a chunk, by variables) of all chunks, end to end."""
    most = max(1, objective.rows_bytes // (_COPIES * x.shape[0] * x.dtype.size))
    chunks = Chunks.of(sample_rows.length(batch), most, 1)
    examples = _Examples(objective, batch, sources, x.dtype)
    return in_chunks(
        chunks, lambda begin: [reduce(examples.rows(sample_rows.between(batch, begin, chunks.size)))], x.dtype
    )[0]


class _Examples:
    """The e_i of parts of a batch, where the variables hold x."""

    def __init__(self, objective, batch, sources, dtype):
        self._model, self._loss, self._sources, self._dtype = objective.model, objective.loss, sources, dtype
        self._batch, self._count = batch, losses.samples(batch)

    def rows(self, samples):
        """The e_i of C samples, by variables: list of [C, size]."""
        finish = []  # of each variable: how its part is made of the tensors that the pass gives

        def one(sample):
            pieces = [KernelGradient.of(g) for g in self._gradient(sample)]
            finish[:] = pieces
            return [piece.tensors for piece in pieces]

        try:
            tensors = tf.vectorized_map(one, samples, fallback_to_while_loop=True, warn=False)
        except sample_rows.NOT_VECTORISED as error:
            return self._one_by_one(samples, error)
        return [tf.cast(piece.rows(of), self._dtype) for piece, of in zip(finish, tensors, strict=True)]

    def _one_by_one(self, samples, error):
        warnings.warn(
            f"TensorFlow cannot vectorise the loss over samples ({checks.one_line(error)}), so the gradients of "
            "examples are computed one after the other, which is slow",
            stacklevel=2,
        )

        def one(sample):
            return tf.concat([tf.cast(tf.reshape(g, [-1]), self._dtype) for g in self._gradient(sample)], 0)

        return [tf.map_fn(one, samples, fn_output_signature=self._dtype)]

    def _gradient(self, sample):
        """e_i as a list of tensors, one for each variable."""
        alone = tf.nest.map_structure(lambda t: t[None], sample)
        with self._sources.recorded() as tape:
            compared, own, predictions = self._loss.terms(self._model, alone, training=True)
            self._loss.check_parts(predictions, alone)
            share = self._loss.share(alone, self._batch, self._count)
            f = times(tf.cast(self._count, tf.float64) * tf.cast(share, tf.float64), compared) + own
        zero = tf.UnconnectedGradients.ZERO
        return [tf.convert_to_tensor(g) for g in tape.gradient(f, self._sources.tensors, unconnected_gradients=zero)]


def _joined(parts):
    """[C, n] of [C, size] of all variables."""
    return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


def _check_uncoupled(objective):
    """Raise where samples are coupled; found once for an objective."""
    if objective.uncoupled is None:
        objective.uncoupled = _obstacle(objective) or ""
    if objective.uncoupled:
        raise ValueError(
            f"{objective.uncoupled}, so samples have no gradients of their own; use layers that treat samples alike in "
            "training (LayerNormalization, no Dropout), and a loss that is a mean or sum over samples"
        )


def _obstacle(objective):
    """Why the samples have no gradients of their own; None where they have."""
    if isinstance(objective.placement, Copies):
        return "gradients of examples are computed on one device"
    if obstacle := objective.obstacle_to_rows():
        return obstacle
    # Outside of all graphs, see `sample_rows`.
    with concurrent.futures.ThreadPoolExecutor(1) as outside:
        return outside.submit(_tried, objective).result()


def _tried(objective):
    try:
        few = tf.nest.map_structure(sample_rows.a_few, objective.batch)
        together, alone = sample_rows.in_graph(lambda: _both_ways(objective, few))
    except Exception as error:
        return f"the loss cannot be taken for single samples ({checks.one_line(error)})"
    bound = _ULPS * linalg.eps(objective.digits or together.dtype) * tf.reduce_max(linalg.row_norms([alone]))
    difference = tf.abs(tf.reduce_mean(alone, 0) - together)
    if tf.reduce_all((difference <= bound) | tf.math.is_nan(together)):
        return None
    return "the loss couples samples: the mean of their gradients is not the gradient of their batch"


def _both_ways(objective, few):
    """(gradient of a batch [n], e_i of its samples [N, n])."""
    with objective.placement.here() as sources:
        layout = objective.vector.layout
        with sources.recorded() as tape:
            compared, own, _ = objective.loss.terms(objective.model, few, training=True)
            f = compared + own
        together = layout.pack(tape.gradient(f, sources.tensors))
        return together, _rows(objective, few, sources, together, _joined)
