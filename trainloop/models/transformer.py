"""A small decoder-only transformer."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainloop.models import arguments

_WIDTH, _HEADS, _BLOCKS = 64, 4, 2


def transformer(input_shape: Sequence[int] = (64,), outputs: int = 96) -> keras.Model:
    """Causal transformer, two blocks 64 wide with four heads; n = 116,576 for 64 tokens out of 96.

    Embedding plus learned positions, blocks with pre-normalisation, a last normalisation, one dense layer to the
    logits at every position. A block is

        x <- x + attention(norm(x))         causal: a position sees itself and those before
        x <- x + dense(gelu(dense(norm(x))))        4 times as wide inside

    Vaswani et al. (2017), decoder only and normalised as by Radford et al. (2019, GPT-2), without dropout.

    Args:
        input_shape: (length,) of sequences of tokens.
        outputs: size of the vocabulary, of what goes in and of what comes out.

    Examples:
        >>> gpt = transformer(input_shape=(16,), outputs=10)
        >>> TrainLoop(gpt, Adam(), loss).evaluate((np.zeros([4, 16], "int32"), np.ones([4, 16], "int32")))["loss"] > 1
        True
    """
    (length,), outputs = arguments.shape("transformer", arguments.TOKENS, input_shape), arguments.outputs(outputs)
    tokens = keras.layers.Input((length,), dtype="int32")
    x = keras.layers.Embedding(outputs, _WIDTH, name="embedding")(tokens)
    x = LearnedPositions(name="positions")(x)
    for i in range(1, _BLOCKS + 1):
        x = _block(x, f"block{i}")
    x = _norm("norm")(x)
    return keras.Model(tokens, keras.layers.Dense(outputs, name="logits")(x), name="transformer")


def _block(x, name):
    attention = keras.layers.MultiHeadAttention(_HEADS, _WIDTH // _HEADS, name=f"{name}_attention")
    inside = _norm(f"{name}_norm1")(x)
    x = keras.layers.Add()([x, attention(inside, inside, use_causal_mask=True)])
    inside = _norm(f"{name}_norm2")(x)
    inside = keras.layers.Dense(4 * _WIDTH, activation="gelu", name=f"{name}_dense1")(inside)
    return keras.layers.Add()([x, keras.layers.Dense(_WIDTH, name=f"{name}_dense2")(inside)])


def _norm(name):
    return keras.layers.LayerNormalization(epsilon=1e-5, name=name)


@keras.saving.register_keras_serializable("trainloop")
class LearnedPositions(keras.layers.Layer):
    """x [N, T, d] plus a trainable vector [d] for each of the T positions.

    Examples:
        >>> models.LearnedPositions()(tf.zeros([2, 5, 3])).shape
        TensorShape([2, 5, 3])
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table [T, d] for an `input_shape` (N, T, d)."""
        self.table = self.add_weight(shape=input_shape[1:], initializer="uniform", name="table")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x + table."""
        return x + self.table
