"""Small tables that scikit-learn brings along, in the units of their training part.

Features, and the targets of regression, are standardised with the mean and the standard deviation of the training
part: (value - mean) / deviation, column by column. So a mean squared error of 1 is that of predicting the mean.
"""

from __future__ import annotations

import numpy as np

REGRESSION = ("diabetes", "linnerud")
CLASSIFICATION = ("breast_cancer", "wine")


def read_table(name: str) -> dict[str, np.ndarray]:
    """One of the tables, a fixed fifth of it for testing, which is stratified where there are classes.

    Returns:
        x_train, x_test: float32 [N, d]. y_train, y_test: float32 [N, k], or int32 [N] for classes.
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features, targets, test_size=0.2, random_state=0, stratify=targets if name in CLASSIFICATION else None
    )
    x_train, x_test = _standardised(x_train, x_test)
    if name in CLASSIFICATION:
        y_train, y_test = y_train.astype(np.int32), y_test.astype(np.int32)
    else:
        y_train, y_test = _standardised(y_train.reshape(len(y_train), -1), y_test.reshape(len(y_test), -1))
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    return tuple(((part - mean) / deviation).astype(np.float32) for part in (train, test))
