"""NaN in one worker's part of a batch: both workers do the same about it."""

import json
import os

from injected import each
from injected.kills import loop_of_workers
from injected.runs import expect, samples, start, wait


@each({"stopped": "stop", "skipped": "skip", "rolled_back": "rollback"})
def nan_in_the_part_of_one_worker(folder, policy):
    from trainloop.cli.launch import free_ports

    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    codes = [wait(child) for child in [start(_work, folder, addresses, index, policy) for index in range(2)]]
    expect(codes == [0, 0], f"the workers ended with {codes}")
    told = [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]
    expect(told[0] == told[1], f"they differ: {told}")
    expected = {"stop": [3, "NONFINITE"], "skip": [18, "FINISHED"], "rollback": [3, "NONFINITE"]}[policy]
    expect(told[0]["step"] == expected[0] and expected[1] in told[0]["status"], f"it ended otherwise: {told[0]}")
    expect(told[0]["finite"], "the weights are lost")


def _work(folder, addresses, index, policy):
    import numpy as np
    import tensorflow as tf

    import trainloop as tl

    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(task)
    loop, batches = loop_of_workers(folder, tl.connect_workers(timeout_seconds=20), on_nonfinite=policy)
    x, y = samples()
    x[int(batches.order(0).numpy()[2 * 40 + 35]), 0] = np.nan  # in the third batch, in the part of worker 1
    batches.arrays = (tf.constant(x), tf.constant(y))  # which it would not take when it is made
    try:
        result = loop.run(batches, epochs=2)
    except tl.TrainingError as error:
        result = error.result
    finite = all(np.all(np.isfinite(w)) for w in loop.model.get_weights())
    told = {"step": result.step, "status": result.status.name, "finite": finite}
    (folder / f"{index}.json").write_text(json.dumps(told))
