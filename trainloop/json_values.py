"""Numbers as JSON has them."""

import math

import numpy as np


def plain(value):
    """A JSON value with the digits the number has in its own precision."""
    item = value.item() if isinstance(value, np.generic) else value
    if not isinstance(item, float):
        return item
    return float(str(value)) if math.isfinite(item) else None
