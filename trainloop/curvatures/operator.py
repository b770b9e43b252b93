"""The curvature of a loss over a whole data set, at the weights that the model has now."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.curvatures.inference import InferenceLoss
from trainloop.curvatures.kinds import KINDS
from trainloop.curvatures.symmetric_operator import SymmetricOperator
from trainloop.curvatures.watch import watched
from trainloop.curvatures.whole_data import Data, WholeData
from trainloop.objectives import losses
from trainloop.objectives.batch_objective import BatchObjective, check_repeatable
from trainloop.objectives.model import ModelObjective
from trainloop.objectives.placement import kept, read, write
from trainloop.types import Losses, LossFn, LossWeights, Residuals, Variable
from trainloop.vectors import linalg
from trainloop.vectors.layout import FlatLayout, VariableVector, trained_variables


class CurvatureOperator(SymmetricOperator):
    """A curvature matrix C [n, n] over a whole data set, as `curvature` makes it.

    Args:
        objective: a `ModelObjective` of one of the batches.
        data: a `WholeData`.
        kind: see `curvature`.

    Attributes:
        kind: as given.
        x: the weights at which it is taken [n].
        layout: the `FlatLayout` of x and of every eigenvector; `v[C.layout.span("dense")]` is the part of a layer.
        shape, dtype: see `SymmetricOperator`.

    Examples:
        >>> C = curvature(model, loss, data=(x, y))
        >>> eigenvalues, eigenvectors = C.top(2)
        >>> first_layer = eigenvectors[C.layout.span(C.layout.names[0])]
    """

    def __init__(self, objective: ModelObjective, data: WholeData, kind: str) -> None:
        self.kind, self._data, self._objective = kind, data, objective
        self.layout: FlatLayout = objective.vector.layout
        self.x: tf.Tensor = objective.vector.read()
        # What the loss reads besides x, such as averages, and what it writes: the model may be trained on.
        self._others = [*objective.written, *((objective.found and objective.found.others) or [])]
        self._values = read(self._others)
        self._product_of_batch, self._loss_of_batch = self._compiled(KINDS[kind]), None
        super().__init__(self._over_all_batches, self.layout.size, self.layout.dtype)

    def __repr__(self) -> str:
        n, data = self.shape[0], self._data
        held = f"{data.size:,} samples in {data.count} batches"
        return f"CurvatureOperator({self.kind}, {n:,} x {n:,}, {self.dtype}, {held})"

    def losses(self, points: Any) -> np.ndarray:
        """f over the whole data set at other points, such as those of a line x + t d or of a plane; compiled once.

        Args:
            points: [k, n].

        Returns:
            [k].

        Raises:
            ValueError: points of another shape.
        """
        rows = np.asarray(points, self.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.shape[0]:
            raise ValueError(f"points must have shape [k, {self.shape[0]}], received {list(rows.shape)}; stack them")
        if self._loss_of_batch is None:
            self._loss_of_batch = self._compiled(_losses)
        return self._sum(self._loss_of_batch, rows, np.zeros(len(rows), self.dtype), "losses, batches")

    def _compiled(self, of_batch):
        """Function (batch, shares, x, rows [k, n]) -> tensor: the part of one batch.

        Args:
            of_batch: function (objective, share, x, rows) -> tensor.
        """
        like = self._objective

        def part(batch, shares, x, rows):
            objective = BatchObjective(like.model, like.loss, batch, like.vector, found=like.found, shares=shares)
            return of_batch(objective, 1.0 if shares is None else shares[0], x, rows)

        n, dtype = self.layout.size, self.layout.dtype
        share = tf.TensorSpec([], tf.float64)
        specs = [None if self._data.count == 1 else (share, share), tf.TensorSpec([n], dtype)]
        traced = tf.function(part, autograph=False)
        return traced.get_concrete_function(self._data.spec(), *specs, tf.TensorSpec([None, n], dtype))

    def _over_all_batches(self, V):
        """C V [n, k]."""
        rows = V.T
        return np.ascontiguousarray(self._sum(self._product_of_batch, rows, rows * 0, "product, batches").T)

    def _sum(self, of_batch, rows, total, title):
        """The sum over all batches. Whatever happens, the model is left as it was."""
        objective, data = self._objective, self._data
        rows, total = tf.constant(rows), tf.constant(total)
        with kept([*objective.vector.native, *self._others]):
            write(self._others, self._values)
            with watched(title, data.count) as advance:
                for batch in data:
                    total += of_batch(batch, data.shares(batch, objective.loss), self.x, rows)
                    advance()
        return total.numpy()


def _losses(objective, share, x, rows):
    """f at each row."""
    del share, x  # the objective has the share
    return linalg.map_rows(objective.value, rows, parallel_iterations=1)


def curvature(
    model: keras.Model,
    loss: Losses | None = None,
    *,
    data: Data,
    kind: str = "hessian",
    loss_fn: LossFn | None = None,
    residuals: Residuals | None = None,
    loss_weights: LossWeights | None = None,
    extra_variables: Sequence[Variable] = (),
) -> CurvatureOperator:
    """A curvature matrix of f(x), the loss over a whole data set, at the weights x that the model has now.

        hessian             H = second derivatives of f, regularization included
        ggn                 G = J' L J + R: J first derivatives of the model's outputs, L second derivatives of the loss
                            by them, R those of the regularization; 2 J'J for residuals
        fisher              J' L J where it is the Fisher matrix: crossentropies, split at the logits; squared errors,
                            for a normal distribution of variance K / 2 with K outputs; and residuals
        empirical_fisher    1/N sum_i g_i g_i', g_i the gradient of the loss of sample i without regularization;
                            sample weights are part of that loss, so that they count squared

    Keras takes the mean of a loss over all entries of a sample, so all four are per entry: for K sigmoid outputs
    `fisher` is 1/K of the Fisher matrix of K independent decisions.

    f is summed over batches, exactly: it is the mean over the samples of all of them, and a smaller last batch counts
    by its samples. Layers are in inference mode, as in `model.evaluate`: dropout draws nothing, and batch normalization
    uses its averages. So f is a function of the weights alone, however the data are cut into batches. A `loss_fn` has
    this mode where it has an argument `training` and passes it on; else it has the mode in which it calls the model.

    The matrix belongs to the weights of this moment. It stays the same when the model is trained on.

    Args:
        model: a built Keras model.
        loss: see `ModelObjective`, as for `model.compile`.
        data: an `ArrayData`, a tuple (x, y) or (x, y, sample_weight), taken in batches of 256, a `tf.data.Dataset` that
            has the same samples in each pass, in any order; for residuals by name `Points` or a dict of points, all of
            them as one batch.
        kind: which matrix, see above.
        loss_fn, residuals, loss_weights, extra_variables: see `ModelObjective`.

    Returns:
        A `CurvatureOperator`: `C @ v`, `C.top(5)`, `C.spectrum()`, `C.trace()`, `C.diagonal()`, `C.solve(b)`.

    Raises:
        ValueError: data that are none of these; a kind that the loss does not have; a loss that is no sum over batches
            where there are several, that runs only as Python, or that draws numbers which cannot be repeated.

    Examples:
        >>> C = curvature(model, loss, data=(x, y))
        >>> sharpness = C.top(1)[0][0]
        >>> trace = curvature(model, loss, data=(x, y), kind="ggn").trace()
    """
    checks.choice("kind", kind, KINDS)
    whole = WholeData(data)
    batch_loss = InferenceLoss(losses.as_batch_loss(loss, loss_fn, residuals, loss_weights, model))
    vector = VariableVector(trained_variables(model, extra_variables))
    objective = ModelObjective(model, batch_loss, whole.first, vector=vector)
    if objective.found is None or not objective.found.traced:
        objective.value(vector.read())  # where it fails as Python too, that error is the better one
        raise ValueError(
            "the loss runs only as Python, so its products cannot be compiled; write it in TensorFlow or keras.ops, "
            "without .numpy() and without branches on values"
        )
    check_repeatable(objective.found)
    return CurvatureOperator(objective, whole, kind)
