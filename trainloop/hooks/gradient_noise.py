"""How much the gradients of single samples scatter about their mean, now and then, as columns of the log.

    B = tr(Sigma) / |G|^2           the simple noise scale

G is the gradient over all data and Sigma the covariance of the gradient of one sample. The gradient of a batch of b
samples has the covariance Sigma / b: much smaller batches than B are mostly noise, much larger ones are mostly wasted.
McCandlish, Kaplan, Amodei and the OpenAI Dota Team (2018), "An empirical model of large-batch training", arXiv
1812.06162, section 2.2 and appendix A.1.

Of N samples with gradients e_i [n] and their mean g, in the appendix's words a big batch of N and small ones of 1:

    S    = (mean |e_i|^2 - |g|^2) / (1 - 1/N)         unbiased for tr(Sigma)
    |G|^2 ~ (N |g|^2 - mean |e_i|^2) / (N - 1)        unbiased for |G|^2

for samples drawn independently: E |e_i|^2 = |G|^2 + tr(Sigma) and E |g|^2 = |G|^2 + tr(Sigma) / N are two linear
equations, and these are their solutions. Their quotient is not unbiased; to average over steps, average both first.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainloop.data import batches
from trainloop.hooks.base import LoopProtocol
from trainloop.hooks.measure import Measure
from trainloop.objectives.losses import samples as number_of_samples
from trainloop.objectives.model import ModelObjective

_NAMES = ("scale", "trace", "squared_norm")


class GradientNoise(Measure):
    """The simple noise scale of the gradient, measured on samples that are kept.

    Three columns: "gradient_noise/trace", the estimate of tr(Sigma); "gradient_noise/squared_norm", that of |G|^2; and
    "gradient_noise/scale", their quotient, in samples. It is NaN where the estimate of |G|^2 is not positive: there the
    samples are too few to see a mean in the noise. A measurement costs a gradient of the samples and one of each.

    Args:
        every_steps: measure after each step whose number is a multiple of this.
        samples: a batch as the loss takes it, such as (inputs, targets), of at least two samples. Draw them
            independently, or take all.

    Raises:
        ValueError: fewer than two samples; when it is measured: samples that are coupled, see
            `ModelObjective.example_gradients`, or variables on several devices.

    Examples:
        >>> hook = GradientNoise(every_steps=2, samples=(x, y))
        >>> history = TrainLoop(model, Adam(), loss, hooks=[hook]).run((x, y), epochs=4).history
        >>> np.isfinite(history["gradient_noise/trace"]).tolist()
        [False, True, False, True]
    """

    def __init__(self, every_steps: int, samples: Any) -> None:
        super().__init__(every_steps, **{f"gradient_noise/{name}": _unmeasured for name in _NAMES})
        self._samples = batches.to_tensors(samples)
        self._count = int(number_of_samples(self._samples))
        if self._count < 2:
            raise ValueError(f"GradientNoise needs at least 2 samples to see noise, received {self._count}")
        self._moments: Any = None

    def on_start(self, loop: LoopProtocol) -> None:
        self._loop, self._moments = loop, None

    def measure(self, model: keras.Model) -> dict[str, float]:
        """{column: number} for the weights as they are.

        Args:
            model: of the loop.
        """
        self._moments = self._moments or self._traced(model)
        mean_square, square_of_mean = map(float, self._moments())
        n = self._count
        trace = (mean_square - square_of_mean) / (1 - 1 / n)
        squared_norm = (n * square_of_mean - mean_square) / (n - 1)
        scale = trace / squared_norm if squared_norm > 0 else np.nan
        return dict(zip(self.functions, (scale, trace, squared_norm), strict=True))

    def _traced(self, model):
        """A compiled function () -> (mean |e_i|^2 [], |g|^2 []), float64."""
        objective = ModelObjective(
            model, self._loop.batch_loss, self._samples, extra_variables=self._loop.extra_variables
        )
        if any(getattr(variable, "values", None) is not None for variable in objective.vector.native):
            raise ValueError(
                "GradientNoise measures on one device; make the model outside of a strategy, or leave it out"
            )

        def moments():
            x = objective.vector.read()
            norms = tf.cast(objective.example_gradient_norms(x), tf.float64)
            g = tf.cast(objective.value_and_grad(x)[1], tf.float64)
            return tf.reduce_mean(tf.square(norms)), tf.reduce_sum(tf.square(g))

        return tf.function(moments, autograph=False).get_concrete_function()


def _unmeasured(model):
    raise NotImplementedError  # all three are measured at once
