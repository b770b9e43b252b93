"""A run that has ended, or is going on, as the loop it was: with its weights and the state of its optimizer."""

import pathlib
from typing import Any

import numpy as np

from trainloop.data.points import Points


def stand_where_it_ended(loop: Any, folder: pathlib.Path) -> str:
    """Restore the newest checkpoint of a run's folder, or its saved model.

    Args:
        loop: a `TrainLoop` made of the run's settings.
        folder: of the run.

    Returns:
        A message that says what was found.

    Raises:
        ValueError: there is neither, or it belongs to another model.
    """
    step = loop.restore(folder / "checkpoints")
    if step is not None:
        return f"after step {step:,}"
    saved = folder / "model.keras"
    if not saved.exists():
        raise ValueError(f"{folder} has no checkpoint and no model.keras; run it first")
    import keras

    loop.model.set_weights(keras.models.load_model(saved, compile=False).get_weights())
    return "its saved model; there is no checkpoint, so the optimizer begins anew"


def sample_of(train: Any, samples: int, seed: int) -> Any:
    """So many samples of the training data, all points of residuals.

    Args:
        train: tuple of arrays, or `Points`.
        samples: how many at most.
        seed: by which they are drawn.
    """
    if isinstance(train, Points) or len(train[0]) <= samples:
        return train
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train[0]))[:samples])
    return tuple(np.asarray(part)[chosen] for part in train)
