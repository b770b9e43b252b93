"""What an optimizer on the flat vector rejects, each with the reason and the replacement."""

import keras
import tensorflow as tf

from trainloop import checks

# What Keras's own options would do to an optimizer on the flat parameter vector, and what to use instead.
_UNSUPPORTED = {
    "weight_decay": "it would change x outside of `update`; use an optimizer with its own (Adam), or a regularizer",
    "use_ema": "it would overwrite x outside of `update`; average the weights in a hook",
    "ema_momentum": "see use_ema",
    "ema_overwrite_frequency": "see use_ema",
    "gradient_accumulation_steps": "the optimizer would see x change between gradients; use a larger batch_size",
    "clipnorm": "it clips each variable separately and turns g; use global_clipnorm, which keeps its direction",
    "clipvalue": "it clips each entry separately and turns g; use global_clipnorm, which keeps its direction",
    "loss_scale_factor": "gradients here are taken in float32 or float64 and need no scaling",
}

# Methods of the Keras 2 optimizer API, and of Keras 3's per-variable one, with what replaces each here.
_OLD_API = {
    "_create_slots": "init_state(self, x)",
    "_prepare": "init_state(self, x)",
    "_resource_apply_dense": "update(self, x, g, state)",
    "_resource_apply_sparse": "update(self, x, g, state); sparse gradients arrive as part of g",
    "get_updates": "update(self, x, g, state)",
    "update_step": "update(self, x, g, state), which runs once for all variables",
}


def old_api(cls):
    """Reject a class that still defines the hooks of another optimizer API, which nothing here would call.

    Raises:
        ValueError: names the method and what replaces it.
    """
    for name, replacement in _OLD_API.items():
        inherited = getattr(keras.optimizers.Optimizer, name, None)
        if getattr(cls, name, None) not in (None, inherited):
            raise ValueError(
                f"{cls.__name__} defines {name} of another optimizer API; its work belongs in {replacement}"
            )


def options(given):
    """Reject what remains of the keyword arguments of a constructor.

    Raises:
        ValueError: an option of Keras that does not fit, with the reason, or an unknown one.
    """
    for name, value in given.items():
        if name not in _UNSUPPORTED:
            known = ["learning_rate", "global_clipnorm", "name"]
            raise ValueError(f"unknown option {name}={value!r}{checks.near_miss(name, known)}")
        if value not in (None, False):
            raise ValueError(f"{name}={value!r} is not supported: {_UNSUPPORTED[name]}")


def weight_decay_exclusions(optimizer):
    """Reject exclusions from a weight decay that does not exist.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{type(optimizer).__name__} has no exclude_from_weight_decay, because Keras's weight_decay would change x "
        "outside of update; trainloop.Adam(weight_decay=...) leaves out biases and the scales of normalisation layers "
        "by their names, and in an update of your own self.layout.mask(...) chooses entries"
    )


def learning_rate_to_set(optimizer, value, has_rate, rate):
    """Reject a number for a learning rate that is not one.

    Args:
        optimizer: whose rate it is.
        value: what a user or a callback of Keras sets.
        has_rate: whether the optimizer has a learning rate.
        rate: the one it has now: a variable, a number or a tensor.

    Raises:
        ValueError: there is none, or it is computed by a function.
    """
    name = type(optimizer).__name__
    if not has_rate:
        lengths = optimizer.shrink_steps(1) if optimizer.built else ()
        instead = f"; optimizer.shrink_steps(0.5) shortens its steps by its {', '.join(lengths)}" if lengths else ""
        raise ValueError(
            f"{name} has no learning rate to set, received {value!r}; leave out callbacks such as ReduceLROnPlateau "
            f"and LearningRateScheduler{instead}"
        )
    if not callable(value) and not isinstance(rate, keras.Variable):
        raise ValueError(
            f"the learning rate of this {name} is a function or a schedule and cannot be set to {value!r}; construct "
            f"it with a number, as in {name}(0.01), where a callback is to change it"
        )


def variables(given):
    """Reject variables that cannot be one vector.

    Raises:
        ValueError: there are none, one has a constraint, takes its value from its gradient, or has a dtype of 16 bits,
            or a replica of several asks.
    """
    if not given or all(0 in v.shape for v in given):
        raise ValueError("nothing to train: the model has no trainable variables; build it, or unfreeze a layer")
    for v in given:
        if getattr(v, "constraint", None) is not None:
            raise ValueError(
                f"{v.path} has a constraint, which would change x outside of `update`; remove it, or project "
                "inside update"
            )
        if getattr(v, "overwrite_with_gradient", False):
            raise ValueError(
                f"{v.path} is to be overwritten with its gradient, as scales of float8 layers are; that is no gradient "
                "of f, and g would have a wrong direction; use the policy 'mixed_bfloat16' or 'float32'"
            )
        dtype = tf.as_dtype(v.dtype)
        if dtype.is_floating and dtype.size < tf.float32.size:
            raise ValueError(
                f"{getattr(v, 'path', v.name)} is {dtype.name}, in which steps below a 256th of a weight "
                "are lost; keep the weights in float32 and compute in bfloat16: "
                "keras.config.set_dtype_policy('mixed_bfloat16')"
            )
    several_replicas()


def several_replicas():
    """Raise if Keras's entry points are used with more than one replica.

    Raises:
        ValueError: names the way that there is.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "under a strategy with several replicas model.fit and apply_gradients hand out the gradient of one replica "
            "at a time, and the optimizer needs that of all; use trainloop.TrainLoop(model, optimizer, loss)"
        )


def half_precision(model):
    """Reject a model that computes in float16; bfloat16 is welcome.

    Raises:
        ValueError: names the first layer that does.
    """
    for layer in (model, *layers_of(model)):
        if getattr(layer, "compute_dtype", None) == "float16":
            raise ValueError(
                f"layer {layer.name} computes in float16, where gradients below 6e-8 become zero unless the loss is "
                "scaled, and a scaled loss is not the f that optimizers compare; use the policy 'mixed_bfloat16', "
                "which has the range of float32, or 'float32'"
            )


def synchronized_averages(model):
    """Reject layers that look at the whole batch by an all-reduce of their own.

    Raises:
        ValueError: names the first of them.
    """
    for layer in (model, *layers_of(model)):
        if getattr(layer, "synchronized", False):
            raise ValueError(
                f"layer {layer.name} has synchronized=True; here replicas meet once per evaluation, so each normalises "
                "by its part of the batch, and the averages become their mean; use synchronized=False"
            )


def layers_of(model):
    """Every layer inside of a model once, those of inner models too."""
    seen = {}

    def visit(outer):
        for layer in getattr(outer, "layers", ()):
            if id(layer) not in seen:
                seen[id(layer)] = layer
                visit(layer)

    visit(model)
    return list(seen.values())
