"""The files of one run, under one roof.

config.json     everything needed to repeat it
metrics.jsonl   every step and every epoch
curves.png      the same to look at
model.keras     the model as it was left
"""

import json
import os
import pathlib
import platform

import keras
import numpy as np
import tensorflow as tf


class RunDirectory:
    """A folder that holds at most one run. Nothing is written before `create`.

    Args:
        path: made by `create` if it does not exist.
        overwrite: a run that is there already may be replaced.

    Raises:
        ValueError: it holds a run and `overwrite` is not set, or it is a file.
    """

    NAMES = ("config.json", "metrics.jsonl", "curves.png", "model.keras")

    def __init__(self, path, overwrite=False):
        self.path = pathlib.Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{path} is a file; give a folder for the run")
        present = [name for name in self.NAMES if (self.path / name).exists()]
        if present and not overwrite:
            raise ValueError(f"{path} already holds a run ({', '.join(present)}); give another folder, or --overwrite")
        self.config, self.metrics, self.curves, self.model = (self.path / name for name in self.NAMES)

    def create(self, config):
        """Make the folder, remove the run that is overwritten, and write config.json.

        Args:
            config: JSON-able dict; the versions of everything are added to it.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for name in self.NAMES:
            (self.path / name).unlink(missing_ok=True)
        self.config.write_text(json.dumps({**config, "versions": versions()}, indent=2) + "\n", encoding="utf-8")


def versions():
    """What the numbers of a run may depend on."""
    from trainloop import __version__

    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "as TensorFlow decides")
    packages = {"onednn": onednn, "trainloop": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    return {**packages, "numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}
