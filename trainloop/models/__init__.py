"""Networks under a name. Each builder is a function (input_shape, outputs) -> keras.Model, and puts out logits.

    input_shape     (H, W, C) images, (d,) features, (T,) tokens: `DataSplit.input_shape`
    outputs         numbers that are put out, at every position of a sequence: `DataSplit.outputs`

For classes these are logits, for regression the predicted numbers themselves. Weights start as Keras's defaults have
them unless a builder says otherwise.
"""

from trainloop.models.autoencoder import autoencoder
from trainloop.models.lenet5 import lenet5
from trainloop.models.lstm import lstm
from trainloop.models.mlp import mlp, softmax_regression
from trainloop.models.resnet20 import resnet20
from trainloop.models.transformer import LearnedPositions, transformer

MODELS = {
    builder.__name__: builder for builder in (lenet5, mlp, softmax_regression, resnet20, autoencoder, transformer, lstm)
}

__all__ = [
    "MODELS",
    "LearnedPositions",
    "autoencoder",
    "lenet5",
    "lstm",
    "mlp",
    "resnet20",
    "softmax_regression",
    "transformer",
]
