"""Checks of what the builders are given."""

from trainloop import checks

IMAGE, TOKENS = "(height, width, channels)", "(length of the sequence,)"
IMAGE_OR_ROW = f"{IMAGE} or (number of features,)"


def shape(model, kind, input_shape):
    """The shape of one sample as a tuple of ints.

    Args:
        model: name of the builder.
        kind: `IMAGE`, `TOKENS` or `IMAGE_OR_ROW`: what the builder takes.
        input_shape: as given.

    Raises:
        ValueError: another number of dimensions, or not positive integers.
    """
    ranks = {IMAGE: (3,), TOKENS: (1,), IMAGE_OR_ROW: (1, 3)}[kind]
    try:
        sides = tuple(input_shape)
    except TypeError:
        sides = ()
    if len(sides) not in ranks:
        raise ValueError(f"input_shape of {model} must be {kind}, received {input_shape}; choose a model for such data")
    return tuple(checks.integer("an entry of input_shape", side, at_least=1) for side in sides)


def outputs(value):
    """The number of outputs as an int.

    Raises:
        ValueError: not a positive integer.
    """
    return checks.integer("outputs", value, at_least=1)
