"""The deep autoencoder on which second-order optimizers are compared."""

import math
from collections.abc import Sequence

import keras

from trainloop.models import arguments


def autoencoder(input_shape: Sequence[int] = (28, 28, 1), outputs: int | None = None) -> keras.Model:
    """Deep autoencoder, pixels-1000-500-250-30-250-500-1000-pixels; n = 2,837,314 for 28x28x1 images.

    Sigmoid units but for the code of 30 numbers, which is linear, and the output, which holds the logits of the pixels
    in the shape of the image. The targets are the images themselves. Hinton and Salakhutdinov (2006); Martens (2010),
    the problem "MNIST" of the literature on Hessian-free methods. Both start elsewhere, by pretraining and from
    sparse weights.

    Args:
        input_shape: (height, width, channels), pixels in [0, 1].
        outputs: not used: as many pixels come out as go in.

    Examples:
        >>> autoencoder(input_shape=(8, 8, 1)).output_shape
        (None, 8, 8, 1)
    """
    input_shape = arguments.shape("autoencoder", arguments.IMAGE, input_shape)

    def dense(units, activation, name):
        return keras.layers.Dense(units, activation=activation, name=name)

    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Flatten(),
            *(dense(units, "sigmoid", f"encoder{i}") for i, units in enumerate((1000, 500, 250), 1)),
            dense(30, None, "code"),
            *(dense(units, "sigmoid", f"decoder{i}") for i, units in enumerate((250, 500, 1000), 1)),
            dense(math.prod(input_shape), None, "pixels"),
            keras.layers.Reshape(input_shape, name="logits"),
        ],
        name="autoencoder",
    )
