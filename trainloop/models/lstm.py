"""A recurrent network with memory cells."""

from collections.abc import Sequence

import keras

from trainloop.models import arguments


def lstm(input_shape: Sequence[int] = (64,), outputs: int = 96) -> keras.Model:
    """Embedding of 32, one LSTM layer of 128 cells, logits at every position; n = 97,888 for a vocabulary of 96.

    Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000), whose bias starts at 1.

    Args:
        input_shape: (length,) of sequences of tokens.
        outputs: size of the vocabulary, of what goes in and of what comes out.

    Examples:
        >>> lstm(input_shape=(16,), outputs=10)(np.zeros([2, 16], "int32")).shape
        TensorShape([2, 16, 10])
    """
    (length,), outputs = arguments.shape("lstm", arguments.TOKENS, input_shape), arguments.outputs(outputs)
    return keras.Sequential(
        [
            keras.layers.Input((length,), dtype="int32"),
            keras.layers.Embedding(outputs, 32, name="embedding"),
            keras.layers.LSTM(128, return_sequences=True, name="lstm"),
            keras.layers.Dense(outputs, name="logits"),
        ],
        name="lstm",
    )
