"""Training loops for algorithms that need a whole Keras network as one vector.

A `tf.function`-compiled loop runs the model under a gradient tape, lays every gradient and every variable end to end
into `g` and `x`, calls the algorithm once, splits the result and assigns it back. Each part is usable alone:
`FlatLayout` and `VariableVector` in somebody else's loop, a `GlobalVectorOptimizer` in `model.compile`, `TrainLoop`.
"""

from trainloop.algorithms import ALGORITHMS, Adam, Momentum, SimpleGD, TestGD
from trainloop.data import DATASETS, ArrayData, DataSplit, load
from trainloop.history import RunResult
from trainloop.hooks import Hook, Progress
from trainloop.layout import FlatLayout, VariableVector
from trainloop.loop import TrainLoop
from trainloop.models import MODELS, lenet5, mlp, softmax_regression
from trainloop.optimizer import GlobalVectorOptimizer
from trainloop.shared_matrix import SharedMatrix
from trainloop.status import Status, TrainingError

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "DATASETS",
    "MODELS",
    "Adam",
    "ArrayData",
    "DataSplit",
    "FlatLayout",
    "GlobalVectorOptimizer",
    "Hook",
    "Momentum",
    "Progress",
    "RunResult",
    "SharedMatrix",
    "SimpleGD",
    "Status",
    "TestGD",
    "TrainLoop",
    "TrainingError",
    "VariableVector",
    "lenet5",
    "load",
    "mlp",
    "softmax_regression",
]
