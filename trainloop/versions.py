"""The version of this package, and the versions of everything that the numbers of a run may depend on."""

import os
import platform

# The one place where it stands: setup.cfg reads it here. Nothing in this file is imported before `versions` is called,
# because `trainloop --help` needs it too.
VERSION = "0.1.0"


def versions():
    """What the numbers of a run may depend on."""
    import keras
    import numpy as np
    import tensorflow as tf

    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "as TensorFlow decides")
    packages = {"onednn": onednn, "trainloop": VERSION, "tensorflow": tf.__version__, "keras": keras.__version__}
    packages |= {"numpy": np.__version__, "python": platform.python_version()}
    # Sums are cut into as many parts as there are threads.
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {**packages, "machine": platform.machine(), "processors": processors}
