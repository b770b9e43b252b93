"""What an objective derives from one part of a batch while the variables hold x.

A batch is one `Part`, or a sum over microbatches. A `Run` is a part at one point: f, predictions, and the Gauss-Newton
matrix, which is split at a seam (see `seam`).
"""

import contextlib

import tensorflow as tf

from trainloop.objectives import derivatives, losses
from trainloop.objectives.sample_rows import residuals
from trainloop.objectives.seam import Seam


class Run:
    """One part of the objective at x, where the variables hold x. `written` is what the first of its runs has left."""

    def __init__(self, objective, part, frozen, x, sources):
        self._objective, self.part, self._frozen, self._x, self.sources = objective, part, frozen, x, sources
        self._model, self._loss, self._placement = objective.model, objective.loss, objective.placement
        self.written = None

    def f(self):
        return self.f_and_predictions()[0]

    def f_and_predictions(self, training=True):
        with self._running():
            compared, own, predictions = self._loss.terms(self._model, self.part.batch, training)
        self._objective.check_parts(self.part, predictions)
        return tf.cast(self.part.weighted(compared, own), self._x.dtype), predictions

    def terms(self, observe=None):
        """The terms of f of this part, with their weights, and the model's own losses last: list of []."""
        with self._running():
            terms, own, predictions = self._loss.weighted_terms(self._model, self.part.batch, training=True)
        self._objective.check_parts(self.part, predictions)
        if observe:
            observe(self.part.batch, predictions)
        weighted = [self.part.weighted_loss(term) for term in terms.values()]
        weighted += [] if own is None else [self.part.weighted_own(own)]
        return [tf.cast(term, self._x.dtype) for term in weighted]

    def curvature(self, own=True):
        """v -> G v, with everything that does not depend on v computed once.

        Args:
            own: whether the Hessian of the model's own losses is part of G.
        """
        if self._loss.composite:
            return self._curvature_at_seam(own)
        if self._loss.has_rows:
            return self._curvature_of_residuals(own)
        raise ValueError(
            "Gauss-Newton products need a loss of the model's predictions or residuals; pass loss=... or residuals=... "
            "instead of loss_fn, or choose curvature='hessian'"
        )

    def _curvature_at_seam(self, own):
        seam = []

        def outputs(_):
            predictions, own = self._predictions_and_own()
            seam.append(Seam(predictions, self._compare))
            return seam[0].z, own

        model = derivatives.Linearised(outputs, self._x, self.sources)
        loss = derivatives.hessian(seam[0].compare, model.z)
        return self._product(model, loss, lambda x: seam[0].of(self._predictions_at(x)), own)

    def _curvature_of_residuals(self, own):
        """v -> (2 J'J + R) v, R only where the model's own losses are wanted."""

        def residuals_at(x):
            with self._objective.at(x, self._frozen):
                return self._residuals_and_own()[0]

        model = derivatives.Linearised(lambda _: self._residuals_and_own(), self._x, self.sources)
        return self._product(model, lambda u: 2 * self.part.weighted_loss(u), residuals_at, own)

    def _product(self, model, loss, z_at, own):
        """v -> (J' L J + R) v, of a `Linearised` model, v -> L v, and a function x -> z; without R unless `own`."""
        jvp = self._jacobian_product(model, z_at)
        if model.extra is None or not own:
            return lambda v: model.vjp(loss(jvp(v)))
        return lambda v: model.vjp(loss(jvp(v))) + self._own_product(v)

    def _jacobian_product(self, model, z_at):
        """v -> J v: by autodiff, or by differences of z where a gradient has no gradient."""

        def product(v):
            if not self._objective.loses_jacobian(self._x):
                try:
                    return model.jvp(v)
                except derivatives.NO_GRADIENT:
                    pass
            return derivatives.difference_of_gradients(z_at, self._x, v, self._objective.digits)

        return product

    def _own_product(self, v):
        """R v, R the Hessian of the model's own losses."""
        if not self._objective.stops_gradients(self._x):
            try:
                return derivatives.hvp(lambda _: self._own(), self._x, v, self.sources)
            except derivatives.NO_GRADIENT:
                pass
        return derivatives.difference_of_gradients(self._gradient_of_own, self._x, v, self._objective.digits)

    def _gradient_of_own(self, x):
        with self._objective.at(x, self._frozen) as sources:
            with sources.recorded() as tape:
                own = self._own()
            return sources.gradient_or_zeros(tape, own, x)

    def _own(self):
        own = self._predictions_and_own if self._loss.composite else self._residuals_and_own
        return self.part.weighted_own(own()[1])

    def _predictions_and_own(self):
        """(predictions, the model's own losses or None)."""
        predictions, own = self._and_own(lambda: self._loss.forward(self._model, self.part.batch, training=True))
        self._objective.check_parts(self.part, predictions)
        return predictions, own

    def _residuals_and_own(self):
        """(r of this part [m], the model's own losses or None)."""
        terms = self._loss.row_terms(self._model, self.part.batch)
        return self._and_own(lambda: residuals(terms, self._x.dtype))

    def _and_own(self, compute):
        with self._running():
            return compute(), losses.own_losses(self._model, self._x.dtype) if self._model.losses else None

    def _predictions_at(self, x):
        with self._objective.at(x, self._frozen):
            return self._predictions_and_own()[0]

    def _compare(self, predictions):
        return self.part.weighted_loss(self._loss.compare(predictions, self.part.batch))

    @contextlib.contextmanager
    def _running(self):
        fresh = self.written is None and self._objective.microbatch_size is None  # it was placed there with x
        with self._placement.running(self._frozen, fresh):
            yield
        if self.written is None:
            self.written = self._placement.values()
