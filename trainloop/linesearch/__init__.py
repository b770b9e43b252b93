"""Line searches over f(x + t d), t > 0."""

from trainloop.linesearch.halving import halving
from trainloop.linesearch.searches import SEARCHES, LineSearch, armijo, hager_zhang, strong_wolfe

__all__ = ["SEARCHES", "LineSearch", "armijo", "hager_zhang", "halving", "strong_wolfe"]
