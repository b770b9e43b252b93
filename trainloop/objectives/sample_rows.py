"""Rows of the Jacobian of a model's residuals, all samples in one vectorised backward pass.

A residual depends on one sample, so a row of J is the gradient of one sample's residual, and one vectorised backward
pass (`tf.vectorized_map`) gives the rows of all of them: 2.5 to 5 times the work of one gradient of f, where a pass
for each of the n columns or m rows takes thousands. Samples are taken in chunks of equal length whose rows, in the
copies that a pass makes of them, take at most `rows_bytes`; what is accumulated over the chunks never holds J.

That is not right for a loss that writes or draws (BatchNormalization in training, Dropout) or whose residuals mix
samples (a mean over the batch), nor possible for Python functions. These take the whole batch, and products with J or
J' one after the other; a warning says so once.
"""

import concurrent.futures
import warnings

import tensorflow as tf

from trainloop import checks
from trainloop.objectives.rows import Chunks, FunctionRows, Rows, in_chunks
from trainloop.vectors import linalg

# How often the rows of a chunk are in memory in one pass: per variable, end to end, and once while they are moved.
_COPIES = 4

# A sample whose residual has more entries than this is differentiated by a nested vectorised pass.
_UNROLLED = 8

# What `tf.vectorized_map` raises where it cannot convert an operation, as in the loops of recurrent layers.
NOT_VECTORISED = (TypeError, ValueError, LookupError, NotImplementedError)

# Samples to try whether residuals mix them.
_TRIED = 3


def residuals(terms, dtype):
    """r [m] of all terms, where the variables are."""
    parts = []
    for term in terms:
        r = term.at()
        size = r.shape.num_elements()
        parts.append(tf.cast(term.scaled(r, tf.size(r) if size is None else size), dtype))
    return _joined(parts)


class SampleRows(Rows):
    """Rows of a batch, where the variables hold x.

    Args:
        loss: a `BatchLoss` with `row_terms`.
        terms: its `Term`s.
        x: [n].
        sources: the `Sources` of x.
        obstacle: what a trace of the loss found that forbids to vectorise it, or None.
        rows_bytes: see the top of this file.
    """

    def __init__(self, loss, terms, x, sources, obstacle, rows_bytes):
        super().__init__(x)
        self._loss, self._terms, self._sources, self._rows_bytes = loss, terms, sources, rows_bytes
        self._obstacle, self._of_function = obstacle, FunctionRows(lambda _: self.residuals(), x, sources)

    def residuals(self):
        return residuals(self._terms, self._x.dtype)

    def length(self):
        if not self._vectorised():
            return self._of_function.length()
        counts = [(chunks.count, chunks.outputs) for chunks in map(self._chunks, self._terms)]
        return sum(count * k for count, k in counts) if all(isinstance(count, int) for count, _ in counts) else None

    def linearised(self):
        return self._of_function.linearised()

    def residuals_and_jacobian(self):
        if not self._vectorised():
            return self._of_function.residuals_and_jacobian()
        try:
            return in_graph(lambda: tuple(map(_joined, zip(*map(self._whole, self._terms), strict=True))))
        except NOT_VECTORISED as error:
            self._give_up(error)
            return self._of_function.residuals_and_jacobian()

    def accumulated(self, add, total):
        if not self._vectorised():
            return self._of_function.accumulated(add, total)

        def over_terms():
            result = total
            for term in self._terms:
                result = self._over_chunks(term, add, result)
            return result

        try:
            return in_graph(over_terms)
        except NOT_VECTORISED as error:
            self._give_up(error)
            return self._of_function.accumulated(add, total)

    def kernel(self, weights):
        """J W J' [m, m]. Where J would take more than `rows_bytes`, by pairs of chunks: each is computed once for each
        other one."""
        if self.fits() or not self._vectorised():
            return super().kernel(weights)
        parts, dtype = [(term, self._chunks(term)) for term in self._terms], weights.dtype

        def chunk(term, chunks, begin):
            return self._rows(term, between(term.points, begin, chunks.size), chunks)[1]

        def against_all(term, chunks, begin):
            left = chunk(term, chunks, begin) * weights
            blocks = [
                in_chunks(c, lambda b, t=t, c=c: [tf.matmul(chunk(t, c, b), left, transpose_b=True)], dtype)[0]
                for t, c in parts
            ]
            return [tf.transpose(_joined(blocks))]

        def all_rows():
            return _joined([in_chunks(c, lambda b, t=t, c=c: against_all(t, c, b), dtype)[0] for t, c in parts])

        return in_graph(all_rows)

    def fits(self):
        """Whether J takes no more than `rows_bytes`; True where its length is not known."""
        m = self.length()
        return m is None or m * self._x.shape[0] * self._x.dtype.size <= self._rows_bytes

    def _vectorised(self):
        """Whether samples can be taken one by one; a warning says it once where they cannot."""
        if self._obstacle is None:
            obstacles = [found for term in self._terms if (found := _obstacle_to_samples(self._loss, term))]
            if not obstacles:
                return True
            self._obstacle = obstacles[0]
        self._say_slow()
        return False

    def _give_up(self, error):
        """What TensorFlow cannot vectorise stays that way."""
        obstacle = f"TensorFlow cannot vectorise it over samples ({checks.one_line(error)})"
        for term in self._terms:
            self._loss.obstacles[term.name] = self._obstacle = f"{term.title}: {obstacle}"
        self._say_slow()

    def _say_slow(self):
        if not self._loss.said_slow:
            self._loss.said_slow = True
            warnings.warn(
                f"{self._obstacle}, so the Jacobian of the residuals is computed by products with the whole batch, one "
                "for each column or row, which is slow",
                stacklevel=2,
            )

    def _over_chunks(self, term, add, total):
        chunks = self._chunks(term)
        if isinstance(chunks.number, int) and chunks.number == 1:
            return add(total, *self._rows(term, term.points, chunks))

        def one(i, total):
            begin, repeated = chunks.place(i)
            r, J = self._rows(term, between(term.points, begin, chunks.size), chunks)
            # Rows that the chunk before has counted count nothing.
            new = tf.cast(tf.range(chunks.size * chunks.outputs) >= repeated * chunks.outputs, r.dtype)
            return i + 1, add(total, new * r, new[:, None] * J)

        wanted = lambda i, _: i < chunks.number  # noqa: E731
        return tf.while_loop(wanted, one, (tf.constant(0), total), parallel_iterations=1)[1]

    def _whole(self, term):
        """(r [m_k], J [m_k, n]) of one term."""
        chunks = self._chunks(term)
        rows = lambda begin: self._rows(term, between(term.points, begin, chunks.size), chunks)  # noqa: E731
        return in_chunks(chunks, rows, self._x.dtype, parts=2)

    def _chunks(self, term):
        count = length(term.points)
        one = tf.nest.map_structure(lambda t: tf.TensorSpec([1, *t.shape[1:]], t.dtype), term.points)
        of = tf.function(lambda points: term.at(points), autograph=False)
        outputs = of.get_concrete_function(one).structured_outputs.shape.num_elements()
        row = _COPIES * outputs * self._x.shape[0] * self._x.dtype.size
        return Chunks.of(count, max(1, self._rows_bytes // row), outputs)

    def _rows(self, term, points, chunks):
        """(r [C c], J [C c, n]) of C points."""
        r, J = tf.vectorized_map(
            lambda sample: self._row(term, sample), points, fallback_to_while_loop=True, warn=False
        )
        scale = term.scaled(tf.ones([1], r.dtype), chunks.count * chunks.outputs)
        n, dtype = self._x.shape[0], self._x.dtype
        return tf.cast(scale * tf.reshape(r, [-1]), dtype), tf.cast(scale, dtype) * tf.reshape(J, [-1, n])

    def _row(self, term, sample):
        """(r [c], its Jacobian [c, n]) of one sample."""
        points = tf.nest.map_structure(lambda t: t[None], sample)
        with tf.GradientTape(persistent=True) as tape:
            for tensor in self._sources.tensors:
                tape.watch(tensor)
            r = tf.reshape(term.at(points), [-1])
            entries = tf.unstack(r) if r.shape[0] <= _UNROLLED else []
        if entries:
            rows = [self._sources.gradient_or_zeros(tape, entry, self._x) for entry in entries]
        else:
            rows = tf.vectorized_map(
                lambda weights: self._sources.gradient_or_zeros(tape, r, self._x, weights),
                tf.eye(r.shape[0], dtype=r.dtype),
                warn=False,
            )
        return r, rows[0][None] if len(entries) == 1 else tf.stack(rows)


def in_graph(compute):
    """compute(), traced once where it would run as Python: eagerly every pass and every chunk is traced separately."""
    if not tf.executing_eagerly():
        return compute()
    return tf.function(compute, autograph=False).get_concrete_function()()


def _joined(parts):
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)


def length(points):
    """How many samples: an int where it is known, else int32 []."""
    first = tf.nest.flatten(points)[0]
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def between(points, begin, size):
    """`size` samples from `begin` on, by `tf.slice`: XLA wants lengths that do not depend on where one begins."""
    return tf.nest.map_structure(
        lambda t: tf.slice(t, [begin] + [0] * (t.shape.rank - 1), [size, *t.shape[1:]]), points
    )


def _obstacle_to_samples(loss, term):
    """Why the entries of a residual cannot be computed one by one; None where they can. Tried once, on a few samples.

    In a thread of its own, outside of all graphs: `tf.init_scope` is outside of them too, but no tape records there.
    """
    if term.name not in loss.obstacles:
        with concurrent.futures.ThreadPoolExecutor(1) as outside:
            loss.obstacles[term.name] = outside.submit(_tried_by_samples, term).result()
    return loss.obstacles[term.name]


def _tried_by_samples(term):
    points = tf.nest.map_structure(a_few, term.points)
    try:
        together, count = term.at(points), length(points)
        alone = [term.at(tf.nest.map_structure(lambda t, i=i: t[i : i + 1], points)) for i in range(count)]
        alone = tf.concat(alone, 0)
    except Exception as error:
        return f"{term.title} cannot be taken for single samples ({checks.one_line(error)})"
    if together.shape == alone.shape and together.shape[0] == count:
        bound = 1e3 * linalg.eps(together.dtype) * (1 + tf.reduce_max(tf.abs(together)))
        same = tf.abs(together - alone) <= bound
        if tf.reduce_all(same | (tf.math.is_nan(together) & tf.math.is_nan(alone))):
            return None
    return f"{term.title} mixes samples"


def a_few(tensor):
    """The first samples, or of a tensor without values some numbers in their place."""
    if hasattr(tensor, "numpy"):
        return tensor[:_TRIED]
    shape = [_TRIED, *(1 if d is None else d for d in tensor.shape[1:])]
    if not tensor.dtype.is_floating:
        return tf.zeros(shape, tensor.dtype)
    return tf.random.stateless_uniform(shape, [1, 2], 0.1, 0.9, tensor.dtype)
