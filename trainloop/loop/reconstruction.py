"""How far an autoencoder's pictures are from what it was given."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("trainloop")
class ReconstructionError(keras.metrics.Mean):
    """Mean over the images of |sigmoid(z) - x|^2, summed over the pixels x of an image; z are the logits put out.

    The number that the literature on Hessian-free methods reports for autoencoders: Hinton and Salakhutdinov (2006),
    Martens (2010).

    Args:
        name, dtype: see `keras.metrics.Metric`.

    Example:
        >>> error = ReconstructionError()
        >>> error.update_state(np.ones([1, 2, 2, 1]), np.zeros([1, 2, 2, 1]))
        >>> float(error.result())
        1.0
    """

    def __init__(self, name: str = "reconstruction_error", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Count a batch of images.

        Args:
            y_true: x, the images [N, ...].
            y_pred: z, the logits of their pixels in the same shape.
            sample_weight: [N], how much each image counts, or None.
        """
        x, z = keras.ops.cast(y_true, self.dtype), keras.ops.cast(y_pred, self.dtype)
        squares = keras.ops.square(keras.ops.sigmoid(z) - x)
        return super().update_state(keras.ops.sum(squares, axis=range(1, len(z.shape))), sample_weight)
