"""The methods that come with trainloop, one file each.

`ALGORITHMS` is the register: the command line and the tests read it. `WRAPPERS` take another method.
"""

from trainloop.algorithms.adam import Adam
from trainloop.algorithms.best_so_far import BestSoFar
from trainloop.algorithms.bfgs import BFGS
from trainloop.algorithms.cmaes import CMAES
from trainloop.algorithms.ellipsoid import Ellipsoid
from trainloop.algorithms.full_matrix_adagrad import FullMatrixAdaGrad
from trainloop.algorithms.lbfgs import LBFGS
from trainloop.algorithms.levenberg_marquardt import LevenbergMarquardt
from trainloop.algorithms.momentum import Momentum
from trainloop.algorithms.newton_cg import NewtonCG
from trainloop.algorithms.nonlinear_cg import NonlinearCG
from trainloop.algorithms.sam import SAM
from trainloop.algorithms.shor_r import ShorR
from trainloop.algorithms.simple_gd import SimpleGD
from trainloop.algorithms.sr1 import SR1
from trainloop.algorithms.stochastic_shor_r import StochasticShorR
from trainloop.algorithms.test_gd import TestGD

_VECTOR = (SimpleGD, Momentum, Adam, TestGD, StochasticShorR, FullMatrixAdaGrad)
_OBJECTIVE = (LBFGS, BFGS, SR1, NonlinearCG, NewtonCG, LevenbergMarquardt, ShorR, Ellipsoid, CMAES)

ALGORITHMS = {cls.__name__.lower(): cls for cls in _VECTOR + _OBJECTIVE}
WRAPPERS = {cls.__name__.lower(): cls for cls in (SAM, BestSoFar)}
