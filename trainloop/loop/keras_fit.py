"""Keras's `fit` for optimizers on the flat parameter vector that evaluate the objective, such as `LBFGS`.

    model = VectorModel(keras_model)
    model.compile(LBFGS(), loss="mse", metrics=["mae"])
    model.fit(x, y, epochs=10, callbacks=[...])

A training step is that of `TrainLoop`: an ordinary pass gives f and g, the optimizer evaluates the objective of the
same batch as often as it likes, and commits once. The rest (epochs, callbacks, data, validation) is Keras's.
"""

import contextlib
import warnings
from typing import Any

import keras
import tensorflow as tf

from trainloop.distributed import replicas
from trainloop.objectives import losses
from trainloop.objectives.model import ModelObjective
from trainloop.objectives.side_effects import LastStep, SideEffects
from trainloop.optimizer import validation
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status
from trainloop.types import Losses, LossWeights, Path
from trainloop.vectors.layout import VariableVector


class VectorModel(keras.Model):
    """A Keras model that `fit` trains with any optimizer of this package.

    `compile`, `fit`, `evaluate`, `predict` and callbacks are those of Keras. `save` and weights are those of the model
    inside, which loads without this package. A failed step warns, leaves the weights at the last finite point and ends
    `fit`; so does an optimizer that has converged, without a warning.

    Args:
        model: a built Keras model.

    Attributes:
        inner: the model.

    Raises:
        ValueError: not a Keras model, or one without weights yet.

    Examples:
        >>> vector_model = VectorModel(model)
        >>> vector_model.compile(LBFGS(), loss=loss)
        >>> history = vector_model.fit(x, y, batch_size=len(x), epochs=3, verbose=0).history["loss"]
        >>> history[2] < history[0]
        True
    """

    def __init__(self, model: keras.Model) -> None:
        if not isinstance(model, keras.Model) or isinstance(model, VectorModel):
            raise ValueError(f"model must be a Keras model, received {type(model).__name__}")
        if not model.built:
            raise ValueError("the model is not built; give it an Input, or call it once on a batch")
        super().__init__(name=model.name)
        self.inner = model
        self.built = True
        self.train_function: Any = None
        self._batch_loss: Any = None
        self._last_step: LastStep | None = None
        self._status: Any = None

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """That of the inner model.

        Args:
            args, kwargs: see `keras.Model.summary`.
        """
        self.inner.summary(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """What the model inside puts out.

        Args:
            inputs, training: see `keras.Model.call`.
        """
        return self.inner(inputs, training=training)

    def compile(
        self,
        optimizer: WholeVectorOptimizer,
        loss: Losses | None = None,
        *,
        loss_weights: LossWeights | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool = False,
    ) -> None:
        """Keras's `compile`.

        Args:
            optimizer: of this package.
            loss, loss_weights, metrics, weighted_metrics, run_eagerly, steps_per_execution, jit_compile: see
                `keras.Model.compile`.

        Raises:
            ValueError: another optimizer, no loss, or a model made under a strategy with several replicas.
        """
        if not isinstance(optimizer, WholeVectorOptimizer):
            raise ValueError(
                f"optimizer must be one of trainloop's, received {optimizer!r}; compile the model itself for another"
            )
        if loss is None:
            raise ValueError("compile needs a loss")
        if replicas.of(self.inner):
            raise ValueError("VectorModel is for one device; use TrainLoop under a strategy with several replicas")
        validation.half_precision(self.inner)
        self._batch_loss = losses.choose(loss=loss, loss_weights=loss_weights, model=self.inner)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one batch. Keras compiles it.

        Args:
            data: (inputs, targets[, sample_weight]).
        """
        batch = tuple(part for part in keras.utils.unpack_x_y_sample_weight(data) if part is not None)
        objective = ModelObjective(
            self.inner,
            self._batch_loss,
            batch,
            vector=VariableVector(self.inner.trainable_variables),
            observe=self._observe,
            counters=[v for metric in self.metrics for v in metric.variables],
        )
        effects = SideEffects(objective.written)
        if self._last_step:
            self._last_step.begin(objective.written)
        first = objective.first_pass()
        status, _, _ = self.optimizer.step(objective, first)
        effects.undo_where(status < 0)
        loss = next(metric for metric in self.metrics if metric.name == "loss")
        loss.update_state(first[0], sample_weight=tf.shape(tf.nest.flatten(batch)[0])[0])
        # The first step of several that ended the run says how.
        self._status.assign(tf.where(tf.equal(self._status, 0), status, self._status))
        return self.get_metrics_result()

    def _observe(self, batch, predictions):
        """Metrics and losses of outputs count the first pass, which describes the weights before the step."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        if len(tf.nest.flatten(predictions)) > 1:
            self.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=weight, training=True)
        self.compute_metrics(x, y, predictions, sample_weight=weight)

    def make_train_function(self, force: bool = False) -> Any:
        """Keras's compiled function of one execution, which also looks how its last step ended.

        Args:
            force: make it again.
        """
        if self.train_function is not None and not force:
            return self.train_function
        self._status = tf.Variable(Status.RUNNING, dtype=tf.int32, trainable=False, name="status")
        evaluates = isinstance(self.optimizer, GlobalObjectiveOptimizer)
        self.optimizer.build(self.inner.trainable_variables)
        self._last_step = LastStep(VariableVector(self.inner.trainable_variables)) if evaluates else None
        super().make_train_function(force=True)
        execute = self.train_function

        def watched(iterator):
            self._status.assign(Status.RUNNING)
            with self._last_step.put_back() if self._last_step else contextlib.nullcontext():
                logs = execute(iterator)
            self._end_by(Status(int(self._status.numpy())))
            return logs

        self.train_function = watched
        return watched

    def _end_by(self, status):
        if status.failed:
            warnings.warn(f"fit ends with {status.name}: {status.message}", stacklevel=2)
        if status != Status.RUNNING:
            self.stop_training = True

    def save(self, filepath: Path, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the model inside, as `keras.Model.save` does.

        Args:
            filepath, overwrite, kwargs: see there.
        """
        self.inner.save(filepath, overwrite=overwrite, **kwargs)

    def save_weights(self, filepath: Path, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the weights of the model inside.

        Args:
            filepath, overwrite, kwargs: see `keras.Model.save_weights`.
        """
        self.inner.save_weights(filepath, overwrite=overwrite, **kwargs)

    def load_weights(self, filepath: Path, **kwargs: Any) -> None:
        """Load weights into the model inside.

        Args:
            filepath, kwargs: see `keras.Model.load_weights`.
        """
        self.inner.load_weights(filepath, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """There is none: save the model inside.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a VectorModel is not saved itself; save(...) writes the model inside")
