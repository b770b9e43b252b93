"""The optimizers that come with trainloop, one file and one line here each.

`ALGORITHMS` is the register: the command line and the tests read it. `WRAPPERS` take another optimizer.
"""

from trainloop.algorithms.adam import Adam
from trainloop.algorithms.best_so_far import BestSoFar
from trainloop.algorithms.bfgs import BFGS
from trainloop.algorithms.cmaes import CMAES
from trainloop.algorithms.combine import Combine
from trainloop.algorithms.ellipsoid import Ellipsoid
from trainloop.algorithms.full_matrix_adagrad import FullMatrixAdaGrad
from trainloop.algorithms.lbfgs import LBFGS
from trainloop.algorithms.levenberg_marquardt import LevenbergMarquardt
from trainloop.algorithms.momentum import Momentum
from trainloop.algorithms.natural_gradient import NaturalGradient
from trainloop.algorithms.newton_cg import NewtonCG
from trainloop.algorithms.nonlinear_cg import NonlinearCG
from trainloop.algorithms.sam import SAM
from trainloop.algorithms.shor_r import ShorR
from trainloop.algorithms.simple_gd import SimpleGD
from trainloop.algorithms.sr1 import SR1
from trainloop.algorithms.ss_bfgs import SSBFGS
from trainloop.algorithms.ss_broyden import SSBroyden
from trainloop.algorithms.stochastic_shor_r import StochasticShorR
from trainloop.algorithms.test_gd import TestGD
from trainloop.optimizer.base import WholeVectorOptimizer as _WholeVectorOptimizer
from trainloop.optimizer.contracts import GlobalVectorOptimizer as _GlobalVectorOptimizer
from trainloop.optimizer.wrapper import Wrapper as _Wrapper

_OPTIMIZERS = [found for name, found in globals().items() if isinstance(found, type) and not name.startswith("_")]

WRAPPERS: dict[str, type[_Wrapper]] = {cls.__name__.lower(): cls for cls in _OPTIMIZERS if issubclass(cls, _Wrapper)}

# Those that need no more than x and g come first.
ALGORITHMS: dict[str, type[_WholeVectorOptimizer]] = {
    cls.__name__.lower(): cls
    for cls in sorted(_OPTIMIZERS, key=lambda cls: not issubclass(cls, _GlobalVectorOptimizer))
    if cls not in WRAPPERS.values()
}

__all__ = ["ALGORITHMS", "WRAPPERS", *(cls.__name__ for cls in _OPTIMIZERS)]
