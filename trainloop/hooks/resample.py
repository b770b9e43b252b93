"""New points of a term during a run: more of them where its residual is large."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.data.batches import samples
from trainloop.data.points import Points
from trainloop.hooks.base import Hook, LoopProtocol, Progress

# So many residuals are taken at once: derivatives by the inputs take ten times the memory of the points.
_CHUNK = 8192


class Resample(Hook):
    """Replaces the points of a term by candidates that are drawn with a probability that grows with the residual.

        p_i proportional to |r_i|^k / mean(|r|^k) + c           r_i the residual of candidate i, its norm over outputs

    Candidates come from the sampler of the term, and as many are chosen as the term has points, without replacement.
    Candidates and choice are a function of (seed of the points, step) and of the weights; the chosen points are part of
    checkpoints. So a run that is resumed has the same bits. The optimizer keeps what it knows of curvature, and takes f
    and g anew: a pair (s, y) never mixes two sets of points.

    Source: Wu, Zhu, Tan, Kartha, Lu (2023), A comprehensive study of non-adaptive and residual-based adaptive sampling
    for physics-informed neural networks, equation (2), the method RAD.

    Args:
        term: its name, as in the residuals and in the `Points` of the run.
        every_steps: after each step whose number is a multiple of this.
        candidates: how many are drawn, at least as many as the term has points.
        k: exponent of the residual, at least 0.
        c: share of all candidates alike, at least 0.

    Raises:
        ValueError: an argument of another kind; when the run starts: its data are not `Points`, the term is none of
            theirs or of the residuals, it has no sampler, or more points than candidates.

    Examples:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
        >>> loop = TrainLoop(
        ...     model,
        ...     LBFGS(),
        ...     residuals={"fit": lambda model, p: model(p) - p**3},
        ...     hooks=[Resample("fit", every_steps=5, candidates=100)],
        ... )
        >>> result = loop.run(Points({"fit": Box([-1], [1], 20)}), steps=10)
    """

    def __init__(self, term: str, every_steps: int, candidates: int, k: float = 1.0, c: float = 1.0) -> None:
        super().__init__(checks.integer("every_steps", every_steps, at_least=1))
        self._term = term
        self._candidates = checks.integer("candidates", candidates, at_least=1)
        self._k, self._c = checks.real("k", k, at_least=0), checks.real("c", c, at_least=0)
        self._loop: LoopProtocol | None = None

    def on_start(self, loop: LoopProtocol) -> None:
        self._feed: Any = loop.resumable().run.feed  # a `PointsFeed`, as is checked now
        points, name = getattr(self._feed, "data", None), self._term
        if not isinstance(points, Points):
            raise ValueError(f"Resample({name!r}) needs a run on Points, received {type(points).__name__} as data")
        loss = loop.batch_loss
        for where, known in (
            ("Points", list(points.values)),
            ("residuals", list(loss.names or ()) if loss.has_rows else []),
        ):
            if name not in known:
                raise ValueError(
                    f"Resample has {name!r}, which no term of the {where} is called{checks.near_miss(str(name), known)}"
                )
        if name not in points.samplers:
            raise ValueError(f"Resample({name!r}) needs a sampler such as Box for this term, received fixed points")
        count = int(samples(points.values[name]))
        if self._candidates < count:
            raise ValueError(f"Resample({name!r}) needs at least {count} candidates, as many as there are points, "
                             f"received {self._candidates}")  # fmt: skip
        if loop is not self._loop:
            norms = functools.partial(_norms, loss, loop.model, name)
            self._loop, self._residual = loop, tf.function(norms, autograph=False)

    def on_step(self, progress: Progress) -> None:
        feed, name = self._feed, self._term
        count, step = int(samples(feed.values[name])), progress.step
        # Another sequence than those of the first points and of draws, see `Points`.
        seed = (feed.data.seed + 104_729 * (1 + list(feed.values).index(name))) % (2**31 - 2)
        candidates = feed.data.samplers[name](tf.constant([seed, step], tf.int32), self._candidates)
        p = self._probabilities(self._residuals_of(candidates))
        # The largest of log p + Gumbel noise are a choice without replacement.
        uniform = tf.random.stateless_uniform(p.shape, [seed + 1, step], dtype=tf.float64, alg="philox").numpy()
        with np.errstate(divide="ignore"):
            order = np.argsort(-(np.log(p) - np.log(-np.log(uniform))), kind="stable")
        feed.replace(name, tf.nest.map_structure(lambda tensor: tf.gather(tensor, order[:count]), candidates))

    def _probabilities(self, r):
        """p [M], not normalised, float64, from r [M]."""
        power = r**self._k
        mean = np.mean(power)
        return (power / mean if mean > 0 else np.ones_like(power)) + self._c

    def _residuals_of(self, points):
        """|r| of every point [M], float64."""
        total = self._candidates
        size = min(_CHUNK, total)
        # The last chunk begins again with the first points, so that all have one shape and are traced once.
        index = np.arange(-(-total // size) * size) % total
        chunks = index.reshape(-1, size)
        r = [self._residual(tf.nest.map_structure(lambda t, i=i: tf.gather(t, i), points)).numpy() for i in chunks]
        r = np.concatenate(r)[:total]
        checks.check_finite(f"the residual {self._term!r} of candidates", r)
        return r


def _norms(loss, model, name, points):
    """|r| of the term with a name at points [M], float64."""
    # Terms are functions that are called only when they are asked for: the others never see these points.
    terms = loss.row_terms(model, dict.fromkeys(loss.names, points), training=False)
    r = tf.cast(next(term for term in terms if term.name == name).at(), tf.float64)
    return tf.abs(r) if r.shape.rank == 1 else tf.norm(r, axis=1)
