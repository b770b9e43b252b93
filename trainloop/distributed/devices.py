"""Which devices a program trains on: one, several of this machine, or those of several workers."""

import os

import tensorflow as tf

from trainloop import checks
from trainloop.workers import connect_workers


def choose_strategy(devices=None):
    """The strategy to make a model under. Call it before anything else is done with TensorFlow.

    Args:
        devices: how many of this machine: GPUs where it has any, else its processor, cut into as many devices. None for
            one, or for the workers of `TF_CONFIG` where that is set; each worker uses all GPUs of its machine.

    Returns:
        a `tf.distribute` strategy, or None for a single device.

    Raises:
        ValueError: fewer GPUs than that, or both ways at once.
        WorkersError: see `connect_workers`.
    """
    if os.environ.get("TF_CONFIG"):
        if devices is not None:
            raise ValueError("TF_CONFIG is set, where each worker uses all its GPUs; leave out devices, or unset it")
        return connect_workers()
    if devices is None or checks.integer("devices", devices, at_least=1) == 1:
        return None
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if devices > gpus:
            raise ValueError(f"devices={devices} are more than the {gpus} GPUs of this machine; ask for fewer")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices)])
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
