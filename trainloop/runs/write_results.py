"""What a run leaves when it is over: the model, and its curves."""

import dataclasses

from trainloop.run_log import read_run_log


def write_results(directory, loop, result, title, resumed):
    """The model as it is, and the curves.

    Args:
        directory: a `RunDirectory` whose metrics file is complete.
        loop: the `TrainLoop`.
        result: its `RunResult`.
        title: above the curves.
        resumed: whether the result has only the steps of the last process.
    """
    if resumed:
        log = read_run_log(directory.metrics)
        result = dataclasses.replace(result, history=log.history, epochs=log.epochs)
    loop.model.save(directory.model)  # first: a picture that fails must not cost the model
    result.plot(directory.curves, title)
