"""Disks that are full, folders that cannot be written or are gone: what they cost, and what they do not."""

import contextlib
import logging
import os
import resource
import shutil
import tempfile

from injected import each, fault
from injected.runs import dataset, every_step_once, expect, goes_on_from, make_loop, raises, records, tree


@contextlib.contextmanager
def full_disk(room):
    """Inside, no file gets longer than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def said(words, times=1):
    """Inside, a warning with these words comes so often."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("trainloop").addHandler(handler)
    yield
    logging.getLogger("trainloop").removeHandler(handler)
    found = sum(words in line for line in lines)
    expect(found == times, f"{words!r} was said {found} times in {lines}")


@fault
def disk_full_while_saving(folder):
    loop, data = make_loop(folder)
    loop.run(data, steps=30)
    room = (folder / "metrics.jsonl").stat().st_size + 8000
    with said("was not written"), full_disk(room):
        loop.run(data, steps=60)
    goes_on_from(folder, 30)


@fault
def disk_full_for_the_log(folder):
    loop, data = make_loop(folder)
    loop.run(data, steps=30)
    with said("metrics.jsonl cannot be written"), full_disk((folder / "metrics.jsonl").stat().st_size + 10):
        loop.run(data, steps=30)
    expect({r["step"] for r in records(folder) if r["kind"] == "step"} == set(range(1, 31)), "half a line was left")
    loop.run(data, steps=20)
    every_step_once(folder, 80)


@fault
def disk_full_for_tensorboard(folder):
    import trainloop as tl

    curves = tl.TensorBoardFile(folder / "curves")
    loop, data = make_loop(folder, hooks=[curves])
    loop.run(data, steps=10)
    curves.load_state(curves.state())
    with said("curves cannot be written"), said("curves: missing is"), full_disk(1):
        loop.run(data, steps=20)
    loop.run(data, steps=10)
    expect(len(list((folder / "curves").iterdir())) == 2, "files without a record were left")
    every_step_once(folder, 40)


@fault
def disk_full_for_the_position_in_a_dataset(folder):
    loop, _ = make_loop(folder)
    batches = dataset()
    loop.run(batches, steps=30)
    before = tempfile.tempdir
    tempfile.tempdir = str(folder / "nowhere")
    with said("was not written"):
        result = loop.run(batches, steps=30)
    tempfile.tempdir = before
    expect(result.step == 60, "the run did not go on")


RESULTS = ("model.keras", "curves.png")


@each({name.replace(".", "_"): name for name in RESULTS})
def disk_full_for(folder, name):
    """The model, or the picture: half a file is no file."""
    from trainloop.runs.directory import RunDirectory, write_results

    loop, data = make_loop(folder)
    result = loop.run(data, steps=30)
    (folder / "run").mkdir()
    directory = RunDirectory(folder / "run")
    directory.begin({})
    (folder / "metrics.jsonl").rename(directory.metrics)
    with full_disk({"model.keras": 20_000, "curves.png": 1}[name]):
        message = write_results(directory, loop, result, "title", resumed=True)
    expect(f"no {name}" in message, f"not said: {message}")
    expect(not (directory.path / name).exists(), "half a file has the name")
    expect(not [path for path in directory.path.iterdir() if path.name.startswith(".")], "half a file was left")
    directory.release()
    raises(ValueError, "it did not come to its end, so continue", lambda: RunDirectory(folder / "run"))


@fault
def half_a_model_of_another_version(folder):
    from trainloop.runs.directory import RunDirectory

    loop, data = make_loop(folder)
    loop.run(data, steps=5)
    (folder / "config.json").write_text("{}")
    loop.model.save(folder / "model.keras")
    os.truncate(folder / "model.keras", 5000)
    raises(ValueError, "it did not come to its end, so continue", lambda: RunDirectory(folder))


@fault
def output_on_a_full_disk(folder):
    from trainloop.cli.common import echo

    full, before = os.open("/dev/full", os.O_WRONLY), os.dup(1)
    os.dup2(full, 1)
    try:
        echo("a line")
    finally:
        os.dup2(before, 1)


@fault
def folder_of_checkpoints_not_writable(folder):
    from trainloop import Hook

    def put_a_file_in_its_place():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "checkpoints").write_text("a file where the folder should be")

    class Loses(Hook):
        def on_step(self, progress):
            put_a_file_in_its_place()

    loop, data = make_loop(folder, hooks=[Loses(every_steps=30)])
    expect(loop.run(data, steps=60).step == 60, "the run did not go on")
    # A run that begins without a place for checkpoints would be one without any.
    (folder / "metrics.jsonl").unlink()
    put_a_file_in_its_place()
    loop, data = make_loop(folder)
    raises(ValueError, "is a file; give a folder", lambda: loop.run(data, steps=60))


@fault
def everything_gone_while_running(folder):
    """The run directory is removed: the log and the checkpoints begin anew, and the run comes to its end."""
    import trainloop as tl

    run = folder / "run"
    run.mkdir()

    class Removes(tl.Hook):
        def on_step(self, progress):
            if progress.step == 30:
                shutil.rmtree(run)
            if progress.step == 60:
                run.mkdir(exist_ok=True)

    loop, data = make_loop(run, hooks=[Removes(every_steps=30), tl.TensorBoardFile(run / "curves")])
    expect(loop.run(data, steps=90).step == 90, "the run did not go on")
    expect((run / "checkpoints" / "step-00000090").exists(), "checkpoints did not begin anew")
    expect(records(run)[-1]["kind"] == "end", "the log did not begin anew")


@fault
def log_mounted_anew_while_running(folder):
    """The same content under another inode, as after a network disk came back."""
    from trainloop import Hook

    class Remounts(Hook):
        def on_step(self, progress):
            content = (folder / "metrics.jsonl").read_bytes()
            (folder / "metrics.jsonl").unlink()
            (folder / "metrics.jsonl").write_bytes(content)

    loop, data = make_loop(folder, hooks=[Remounts(every_steps=30)])
    loop.run(data, steps=60)
    every_step_once(folder, 60)
    goes_on_from(folder, 60)


@fault
def two_processes_on_one_run(folder):
    from trainloop.runs.directory import RunDirectory

    first = RunDirectory(folder / "run")
    first.begin({})
    raises(ValueError, "in use by a run of another process", lambda: RunDirectory(folder / "run", resume=True))


STARTS = {"plain": {}, "resume": {"resume": True}}


@each(STARTS)
def start_in_a_used_folder(folder, options):
    from trainloop.runs.directory import RunDirectory

    for name in ("checkpoints", "tensorboard"):
        (folder / name).mkdir()
        (folder / name / "theirs").write_text("precious")
    before = tree(folder)
    raises(ValueError, "--overwrite", lambda: RunDirectory(folder, **options).resume({}, lambda _: None))
    expect(tree(folder) == before, "something was changed")


@fault
def overwriting_a_folder_with_files_of_others(folder):
    from trainloop.runs.directory import RunDirectory

    loop, data = make_loop(folder)
    loop.run(data, steps=30)
    (folder / "config.json").write_text("{}")
    theirs = [folder / "notes.txt", folder / "checkpoints" / "thesis.ckpt"]
    for path in theirs:
        path.write_text("precious")
    RunDirectory(folder, overwrite=True).begin({})
    expect(
        sorted(tree(folder)) == ["checkpoints/thesis.ckpt", "config.json", "lock", "notes.txt"], "not what was meant"
    )
