"""A loss as `evaluate` computes it: with layers in inference mode."""

from trainloop.objectives.batch_loss import BatchLoss


class InferenceLoss(BatchLoss):
    """A `BatchLoss` whose layers are in inference mode, whatever they are asked for.

    Args:
        loss: a `BatchLoss`.
    """

    def __init__(self, loss):
        super().__init__()
        self.given = loss
        self.composite, self.dtype, self.has_rows, self.names = loss.composite, loss.dtype, loss.has_rows, loss.names

    def terms(self, model, batch, training):
        del training
        return self.given.terms(model, batch, training=False)

    def forward(self, model, batch, training):
        """The model's predictions."""
        del training
        return self.given.forward(model, batch, training=False)

    def compare(self, predictions, batch):
        """The loss of predictions, []."""
        return self.given.compare(predictions, batch)

    def row_terms(self, model, batch, training=True):
        """The `Term`s for a batch."""
        del training
        return self.given.row_terms(model, batch, training=False)

    def share(self, part, batch, count=None):
        """As that of the loss."""
        return self.given.share(part, batch, count)

    def check_parts(self, predictions, batch):
        """As that of the loss."""
        self.given.check_parts(predictions, batch)
