"""For which losses the Gauss-Newton matrix is the Fisher matrix of the model's own distribution.

    F = E over samples, E over targets y drawn from the model, of (d log p / dx) (d log p / dx)'

Where the loss is -log p of an exponential family and its natural parameters are the outputs, second derivatives by the
outputs do not depend on y, so the expectation over y changes nothing and F = J' L J (Martens 2020, section 9):

    crossentropies      the outputs are logits, or a softmax or sigmoid beside which Keras keeps them
    squared errors      p is normal with the variance K / 2 for K outputs, so that the mean of their squares is -log p
"""

from trainloop.objectives.keras_losses import known_function
from trainloop.objectives.seam import Seam

_CROSSENTROPIES = (
    *("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"),
    "_crossentropy",  # the one of these that fits the shapes
)
_SQUARES = "mean_squared_error"


def check_is_likelihood(model, loss, batch):
    """Raise where the Gauss-Newton matrix is not known to be the Fisher matrix.

    Args:
        model: a Keras model.
        loss: an `InferenceLoss`.
        batch: of it.

    Raises:
        ValueError: says why, and what to choose.
    """
    if loss.has_rows:  # squares, whatever they are called
        return
    if not loss.composite:
        raise ValueError(
            "kind='fisher' needs the model's own distribution: a crossentropy or squared errors as loss=..., or "
            "residuals=...; with loss_fn choose kind='hessian'"
        )
    predictions = loss.forward(model, batch, training=False)
    at_logits = Seam(predictions, lambda outputs: loss.compare(outputs, batch)).at_logits
    for of, *_ in loss.given.parts(predictions, batch):
        name = known_function(of.loss)
        if name not in (*_CROSSENTROPIES, _SQUARES):
            raise ValueError(
                "kind='fisher' is known for crossentropies and squared errors of Keras, received the loss "
                f"{of.name!r}, whose distribution is not known; choose kind='ggn', or 'empirical_fisher'"
            )
        if name != _SQUARES and not (at_logits[of.output] or getattr(of.loss, "from_logits", False)):
            raise ValueError(
                f"kind='fisher' needs the logits of the crossentropy {of.name!r}: end the model with them and use "
                "from_logits=True, or with a layer whose activation is 'softmax' or 'sigmoid'"
            )
