"""Every public name of `trainloop`, in one list: what `import trainloop as tl` gives."""

from trainloop import algorithms, combiners, contrib, data, distributed, hooks, linesearch, models, plots, testing
from trainloop.algorithms import *  # noqa: F403
from trainloop.curvatures.estimates import Estimate
from trainloop.curvatures.operator import CurvatureOperator, curvature
from trainloop.curvatures.spectrum import Spectrum
from trainloop.curvatures.symmetric_operator import SymmetricOperator
from trainloop.data import *  # noqa: F403
from trainloop.distributed import WorkersError, connect_workers
from trainloop.hooks import (
    EarlyStopping,
    GradientNoise,
    Hook,
    LayerNorms,
    Measure,
    MetricsFile,
    Progress,
    Resample,
    RestoreBest,
    SaveCheckpoint,
    StopWhen,
    TensorBoardFile,
)
from trainloop.loop.inspection import Inspection
from trainloop.loop.keras_fit import VectorModel
from trainloop.loop.metrics import ReconstructionError
from trainloop.loop.minimize_result import Iterate, MinimizeResult
from trainloop.loop.minimizer import minimize
from trainloop.loop.phases import Phase, Plateau
from trainloop.loop.train_loop import TrainLoop
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.stored_value import StoredValue
from trainloop.matrices.vector_ring import VectorRing
from trainloop.models import MODELS, autoencoder, lenet5, lstm, mlp, resnet20, softmax_regression, transformer
from trainloop.objectives.base import Objective
from trainloop.objectives.by_inputs import derivatives
from trainloop.objectives.closure import ClosureObjective
from trainloop.objectives.function import FunctionObjective, LeastSquares
from trainloop.objectives.model import ModelObjective
from trainloop.optimizer.base import StepResult
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer, GlobalVectorOptimizer
from trainloop.optimizer.memory_plan import MemoryPlan
from trainloop.optimizer.proposed_step import ProposedStep
from trainloop.optimizer.wrapper import Wrapper
from trainloop.results import RunResult
from trainloop.runs.assembly import Assembly, assemble
from trainloop.status import Status, TrainingError
from trainloop.vectors.layout import FlatLayout, VariableVector

__all__ = [
    *algorithms.__all__,
    *data.__all__,
    "MODELS",
    "Assembly",
    "ClosureObjective",
    "CurvatureOperator",
    "EarlyStopping",
    "Estimate",
    "FlatLayout",
    "FunctionObjective",
    "GlobalObjectiveOptimizer",
    "GlobalVectorOptimizer",
    "GradientNoise",
    "Hook",
    "Inspection",
    "Iterate",
    "LayerNorms",
    "LeastSquares",
    "Measure",
    "MemoryPlan",
    "MetricsFile",
    "MinimizeResult",
    "ModelObjective",
    "Objective",
    "Phase",
    "Plateau",
    "Progress",
    "ProposedStep",
    "ReconstructionError",
    "Resample",
    "RestoreBest",
    "RunResult",
    "SaveCheckpoint",
    "SharedMatrix",
    "Spectrum",
    "Status",
    "StepResult",
    "StopWhen",
    "StoredValue",
    "SymmetricOperator",
    "TensorBoardFile",
    "TrainLoop",
    "TrainingError",
    "VariableVector",
    "VectorModel",
    "VectorRing",
    "WorkersError",
    "Wrapper",
    "algorithms",
    "assemble",
    "autoencoder",
    "combiners",
    "connect_workers",
    "contrib",
    "curvature",
    "data",
    "derivatives",
    "distributed",
    "hooks",
    "lenet5",
    "linesearch",
    "lstm",
    "minimize",
    "mlp",
    "models",
    "plots",
    "resnet20",
    "softmax_regression",
    "testing",
    "transformer",
]
