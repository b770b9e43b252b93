"""The residual network of 20 layers for small images."""

from collections.abc import Sequence

import keras

from trainloop.models import arguments


def resnet20(input_shape: Sequence[int] = (28, 28, 1), outputs: int = 10) -> keras.Model:
    """ResNet-20: 19 convolutions with shortcuts, one dense layer; n = 269,434 for 28x28x1 images and 10 classes.

    A 3x3 convolution with 16 filters, then three stages of three blocks of two 3x3 convolutions, with 16, 32 and 64
    filters; the second and third stage begin with stride 2. Global average pooling, and `outputs` units. Every
    convolution is followed by batch normalisation and has no bias. He, Zhang, Ren and Sun (2016), section 4.2, as for
    CIFAR-10, with shortcuts of option A: the identity where shapes agree, every other pixel and channels of zeros
    where they do not, so no shortcut has a weight.

    Args:
        input_shape: (height, width, channels), of any size.
        outputs: classes or targets.

    Examples:
        >>> resnet20(input_shape=(32, 32, 3), outputs=100).output_shape
        (None, 100)
    """
    input_shape, outputs = arguments.shape("resnet20", arguments.IMAGE, input_shape), arguments.outputs(outputs)
    image = keras.layers.Input(input_shape)
    x = keras.layers.Activation("relu")(_convolution(image, 16, 1, "conv1"))
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in (1, 2, 3):
            x = _block(x, filters, 2 if stage > 1 and block == 1 else 1, f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(outputs, name="logits")(x), name="resnet20")


def _block(x, filters, stride, name):
    """relu(x + F(x)) with two convolutions in F."""
    inner = keras.layers.Activation("relu")(_convolution(x, filters, stride, f"{name}_conv1"))
    inner = _convolution(inner, filters, 1, f"{name}_conv2")
    return keras.layers.Activation("relu")(keras.layers.Add()([_shortcut(x, filters, stride), inner]))


def _convolution(x, filters, stride, name):
    # He et al. (2015): variance 2 / fan_in keeps the size of activations behind ReLU.
    x = keras.layers.Conv2D(filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name)(x)
    return keras.layers.BatchNormalization(name=f"{name}_norm")(x)


def _shortcut(x, filters, stride):
    """x, or every other pixel of it with as many channels of zeros before as behind."""
    if stride == 1:
        return x
    x = keras.layers.AveragePooling2D(1, stride)(x)
    missing = filters - x.shape[-1]
    return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
