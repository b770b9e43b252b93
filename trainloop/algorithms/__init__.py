"""The methods that come with trainloop, one file each.

`ALGORITHMS` is the register: the command line and the tests read it.
"""

from trainloop.algorithms.adam import Adam
from trainloop.algorithms.momentum import Momentum
from trainloop.algorithms.simple_gd import SimpleGD
from trainloop.algorithms.test_gd import TestGD

ALGORITHMS = {cls.__name__.lower(): cls for cls in (SimpleGD, Momentum, Adam, TestGD)}
