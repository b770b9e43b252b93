"""LeNet-5, the first convolutional network of everybody's."""

from collections.abc import Sequence

import keras

from trainloop.models import arguments


def lenet5(input_shape: Sequence[int] = (28, 28, 1), outputs: int = 10) -> keras.Model:
    """LeNet-5: two convolutions with pooling, three dense layers; n = 44,426 for 28x28x1 images and 10 classes.

    6 and 16 filters of 5x5, each followed by 2x2 max pooling, then 120, 84 and `outputs` units. LeCun et al. (1998),
    with ReLU and max pooling in place of scaled tanh and trainable subsampling. Images of fewer than 16 pixels on a
    side are padded, because two unpadded 5x5 convolutions would leave nothing of them.

    Args:
        input_shape: (height, width, channels).
        outputs: classes or targets.

    Examples:
        >>> lenet5().count_params()
        44426
    """
    input_shape, outputs = arguments.shape("lenet5", arguments.IMAGE, input_shape), arguments.outputs(outputs)
    padding = "valid" if min(input_shape[:2]) >= 16 else "same"
    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Conv2D(6, 5, padding=padding, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(2, padding=padding),
            keras.layers.Conv2D(16, 5, padding=padding, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(2, padding=padding),
            keras.layers.Flatten(),
            keras.layers.Dense(120, activation="relu", name="dense1"),
            keras.layers.Dense(84, activation="relu", name="dense2"),
            keras.layers.Dense(outputs, name="logits"),
        ],
        name="lenet5",
    )
