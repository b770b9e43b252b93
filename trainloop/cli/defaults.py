"""What a run is where the command line does not say it, and a name for its folder."""

# LeNet-5 on the digits ends above 95 % with these.
DEFAULT_OPTIMIZER, DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE = "testgd", 50, 64

# Points of residuals have no epochs, and a last phase may have no steps of its own.
DEFAULT_STEPS = 1000


def with_defaults(settings, data):
    """The settings with a goal, a model and batches that fit the data, and a folder named by all of them.

    Args:
        settings: of all options, by name.
        data: a `DataSplit` or `Points`.

    Raises:
        ValueError: a setting that points do not have.
    """
    import trainloop as tl
    from trainloop.runs import words
    from trainloop.runs.directory import fresh_path

    if settings["then"] and settings["epochs"] is None:
        settings = {**settings, "then": words.with_last_steps(settings["then"], DEFAULT_STEPS)}
    settings |= of_points(settings) if isinstance(data, tl.Points) else of_samples(settings, data)
    optimizers = [one.optimizer for one in words.phases(settings)]
    folder = settings["run_dir"] or fresh_path(settings["model"], settings["dataset"], *optimizers)
    return {**settings, "run_dir": folder}


def of_samples(settings, data):
    """Model, batch size and epochs for a `DataSplit`."""
    from trainloop.runs.assembly import DEFAULT_MODELS

    endless = settings["epochs"] is None and settings["steps"] is None
    return {
        "model": settings["model"] or DEFAULT_MODELS[data.kind],
        "batch_size": settings["batch_size"] or min(DEFAULT_BATCH_SIZE, len(data.x_train)),
        "epochs": DEFAULT_EPOCHS if endless else settings["epochs"],
    }


def of_points(settings):
    """Steps for `Points`. Raises ValueError for what only epochs have, and for sizes of batches."""
    from trainloop.runs.settings import SETTINGS

    for entry in SETTINGS:
        if entry.for_points and settings[entry.name] is not None:
            option = f"--{entry.name.replace('_', '-')}"
            raise ValueError(f"{option} is for data with epochs, and points of residuals have none; {entry.for_points}")
    return {"steps": settings["steps"] or DEFAULT_STEPS}
