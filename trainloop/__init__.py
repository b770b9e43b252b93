"""Training loops for algorithms that need a whole Keras network as one vector.

A `tf.function`-compiled loop runs the model under a gradient tape, lays every gradient and every variable end to end
into `g` and `x`, calls the algorithm once, splits the result and assigns it back. Each part is usable alone:
`FlatLayout` and `VariableVector` in somebody else's loop, a `GlobalVectorOptimizer` in `model.compile`, `minimize` for
any function of a vector, `TrainLoop`.
"""

from trainloop import linesearch, testing
from trainloop.algorithms import (
    ALGORITHMS,
    BFGS,
    CMAES,
    LBFGS,
    SAM,
    SR1,
    WRAPPERS,
    Adam,
    BestSoFar,
    Ellipsoid,
    FullMatrixAdaGrad,
    LevenbergMarquardt,
    Momentum,
    NewtonCG,
    NonlinearCG,
    ShorR,
    SimpleGD,
    StochasticShorR,
    TestGD,
)
from trainloop.assembly import Assembly, assemble
from trainloop.data import DATASETS, ArrayData, DataSplit, load
from trainloop.endings import EarlyStopping, RestoreBest, StopWhen
from trainloop.function_objective import FunctionObjective, LeastSquares
from trainloop.history import RunResult
from trainloop.hooks import Hook, Progress
from trainloop.inspection import Inspection
from trainloop.layer_norms import LayerNorms
from trainloop.layout import FlatLayout, VariableVector
from trainloop.loop import TrainLoop
from trainloop.minimize import Iterate, MinimizeResult, minimize
from trainloop.model_objective import ModelObjective
from trainloop.models import MODELS, autoencoder, lenet5, lstm, mlp, resnet20, softmax_regression, transformer
from trainloop.objective import Objective
from trainloop.optimizer import GlobalObjectiveOptimizer, GlobalVectorOptimizer
from trainloop.proposed_step import ProposedStep
from trainloop.reconstruction import ReconstructionError
from trainloop.saving import SaveCheckpoint
from trainloop.shared_matrix import SharedMatrix
from trainloop.status import Status, TrainingError
from trainloop.stored import StoredValue
from trainloop.tensorboard_file import TensorBoardFile
from trainloop.vector_ring import VectorRing
from trainloop.workers import WorkersError, connect_workers
from trainloop.writers import MetricsFile

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "BFGS",
    "CMAES",
    "DATASETS",
    "LBFGS",
    "MODELS",
    "SAM",
    "SR1",
    "WRAPPERS",
    "Adam",
    "ArrayData",
    "Assembly",
    "BestSoFar",
    "DataSplit",
    "EarlyStopping",
    "Ellipsoid",
    "FlatLayout",
    "FullMatrixAdaGrad",
    "FunctionObjective",
    "GlobalObjectiveOptimizer",
    "GlobalVectorOptimizer",
    "Hook",
    "Inspection",
    "Iterate",
    "LayerNorms",
    "LeastSquares",
    "LevenbergMarquardt",
    "MetricsFile",
    "MinimizeResult",
    "ModelObjective",
    "Momentum",
    "NewtonCG",
    "NonlinearCG",
    "Objective",
    "Progress",
    "ProposedStep",
    "ReconstructionError",
    "RestoreBest",
    "RunResult",
    "SaveCheckpoint",
    "SharedMatrix",
    "ShorR",
    "SimpleGD",
    "Status",
    "StochasticShorR",
    "StopWhen",
    "StoredValue",
    "TensorBoardFile",
    "TestGD",
    "TrainLoop",
    "TrainingError",
    "VariableVector",
    "VectorRing",
    "WorkersError",
    "assemble",
    "autoencoder",
    "connect_workers",
    "lenet5",
    "linesearch",
    "load",
    "lstm",
    "minimize",
    "mlp",
    "resnet20",
    "softmax_regression",
    "testing",
    "transformer",
]
