"""Numbers as JSON has them."""

import math

import numpy as np


def plain(value):
    """A JSON value with the digits the number has in its own precision."""
    if isinstance(value, (np.floating, float)):
        return float(str(value)) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
