"""Hooks: what happens between the steps of a run, and looks into every step."""

from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.hooks.gradient_noise import GradientNoise
from trainloop.hooks.layer_norms import LayerNorms
from trainloop.hooks.measure import Measure
from trainloop.hooks.metrics_file import MetricsFile, read_run_log
from trainloop.hooks.resample import Resample
from trainloop.hooks.save_checkpoint import SaveCheckpoint
from trainloop.hooks.stopping import EarlyStopping, RestoreBest, StopWhen
from trainloop.hooks.tensorboard import TensorBoardFile

__all__ = [
    "EarlyStopping",
    "GradientNoise",
    "Hook",
    "LayerNorms",
    "LoopProtocol",
    "Measure",
    "MetricsFile",
    "Progress",
    "Resample",
    "RestoreBest",
    "SaveCheckpoint",
    "StopWhen",
    "TensorBoardFile",
    "read_run_log",
]
