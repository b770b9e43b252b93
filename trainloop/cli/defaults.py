"""What a run is where the command line does not say it, and a name for its folder."""

from trainloop.runs import specs
from trainloop.runs.settings import SETTINGS

# LeNet-5 on the digits ends above 95 % with these.
DEFAULT_OPTIMIZER, DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE = "testgd", 50, 64

# Points of residuals have no epochs, and a last phase may have no steps of its own.
DEFAULT_STEPS = 1000


def with_defaults(settings, data):
    """The settings with a goal, a model and batches that fit a `DataSplit` or `Points`, and a folder named by all."""
    from trainloop.data.points import Points
    from trainloop.runs.directory import fresh_path

    if settings["then"] and settings["epochs"] is None:
        settings = {**settings, "then": specs.with_last_steps(settings["then"], DEFAULT_STEPS)}
    if isinstance(data, Points):
        _check_for_points(settings)
        settings = {**settings, "steps": settings["steps"] or DEFAULT_STEPS}
    else:
        batch_size = settings["batch_size"] or min(DEFAULT_BATCH_SIZE, len(data.x_train))
        settings = {**fitting(settings, data, DEFAULT_EPOCHS), "batch_size": batch_size}
    optimizers = [one.optimizer for one in specs.phases(settings)]
    folder = settings["run_dir"] or fresh_path(settings["model"], settings["dataset"], *optimizers)
    return {**settings, "run_dir": folder}


def fitting(settings, data, epochs):
    """Settings with a model that fits a `DataSplit`, and so many epochs where nothing else ends a run."""
    from trainloop.runs.assembly import DEFAULT_MODELS

    endless = settings["epochs"] is None and settings["steps"] is None
    model = settings["model"] or DEFAULT_MODELS[data.kind]
    return {**settings, "model": model, "epochs": epochs if endless else settings["epochs"]}


def _check_for_points(settings):
    for entry in SETTINGS:
        if entry.for_points and settings[entry.name] is not None:
            option = f"--{entry.name.replace('_', '-')}"
            raise ValueError(f"{option} is for data with epochs, and points of residuals have none; {entry.for_points}")
