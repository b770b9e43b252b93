"""Damaged checkpoints, and those that cannot be read for a moment."""

import errno
import json
import os
import pathlib
import resource
import shutil

from injected import each, fault
from injected.runs import expect, goes_on_from, make_loop, raises, saved, tree

NEWEST = "step-00000060"


def _written(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _flip(place):
    def change(content):
        i = int(place * len(content))
        return content[:i] + bytes([content[i] ^ 16]) + content[i + 1 :]

    return _written(change)


def _in_its_place(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def _forged(**changes):
    """A record that says something else of the run, under a checksum that agrees."""

    def damage(path):
        from trainloop.checkpoints import files

        with files.Saved(path.parent) as checkpoint:
            arrays = {name: checkpoint.read(name) for name in checkpoint.names}
            meta = checkpoint.meta
        meta["run"] |= changes
        files.write(path.parent, arrays, meta)

    return damage


DAMAGE = {
    "arrays_cut_off": ("arrays.npz", _written(lambda content: content[: len(content) // 2])),
    "arrays_one_byte_longer": ("arrays.npz", _written(lambda content: content + b"\0")),
    "arrays_empty": ("arrays.npz", _written(lambda content: b"")),
    "arrays_flipped_at_the_beginning": ("arrays.npz", _flip(0.001)),
    "arrays_flipped_in_the_middle": ("arrays.npz", _flip(0.5)),
    "arrays_flipped_in_the_directory": ("arrays.npz", _flip(0.99)),
    "arrays_missing": ("arrays.npz", pathlib.Path.unlink),
    "arrays_a_folder": ("arrays.npz", _in_its_place(pathlib.Path.mkdir)),
    "arrays_a_pipe": ("arrays.npz", _in_its_place(os.mkfifo)),
    "arrays_of_another_checkpoint": (
        "arrays.npz",
        lambda path: shutil.copy(path.parent.parent / "step-00000050" / path.name, path),
    ),
    "meta_cut_off": ("meta.json", _written(lambda content: content[: len(content) // 2])),
    "meta_flipped": ("meta.json", _flip(0.3)),
    "meta_nested": ("meta.json", _written(lambda content: b"[" * 100_000)),
    "meta_of_wrong_types": ("meta.json", _written(lambda content: b'{"format": [], "run": 3}')),
    "meta_with_a_number_of_10000_digits": ("meta.json", _written(lambda content: b"9" * 10_000)),
    "meta_missing": ("meta.json", pathlib.Path.unlink),
    "meta_an_endless_device": ("meta.json", _in_its_place(lambda path: path.symlink_to("/dev/zero"))),
    "meta_that_begins_later": ("meta.json", _forged(first_step=10**9)),
    "meta_of_another_step": ("meta.json", _forged(step=59)),
}


@each(DAMAGE)
def damage(folder, case):
    file, change = case
    change(saved(folder) / file)
    goes_on_from(folder, 50)


@fault
def all_checkpoints_damaged(folder):
    saved(folder)
    for path in (folder / "checkpoints").glob("*/meta.json"):
        path.write_text("{}")
    before = tree(folder)
    loop, data = make_loop(folder)
    raises(
        ValueError, "all checkpoints .* are damaged, nothing was removed", lambda: loop.restore(folder / "checkpoints")
    )
    (folder / "metrics.jsonl").rename(folder / "log")
    raises(ValueError, "continue the run it belongs to", lambda: make_loop(folder)[0].run(data, steps=5))
    (folder / "metrics.jsonl").unlink()
    (folder / "log").rename(folder / "metrics.jsonl")
    expect(tree(folder) == before, "something was changed")


@fault
def flips_anywhere(folder):
    """Ten thousand, each of which is noticed."""
    import random

    from trainloop.checkpoints.files import DamagedCheckpointError, Saved

    newest, places = saved(folder), random.Random(0)
    for file in ("arrays.npz", "meta.json"):
        whole = (newest / file).read_bytes()
        for _ in range(5000):
            i, bit = places.randrange(len(whole)), 1 << places.randrange(8)
            (newest / file).write_bytes(whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :])
            raises(DamagedCheckpointError, "changed|cannot be read", lambda: Saved(newest).close())
        (newest / file).write_bytes(whole)
    goes_on_from(folder, 60)


MOMENTS = {name: getattr(errno, name) for name in ("EMFILE", "EIO", "ESTALE", "EACCES")}


@each(MOMENTS)
def error_of_the_moment(folder, number):
    saved(folder)
    opened, before = pathlib.Path.open, tree(folder)

    def deny(path, *args, **kwargs):
        if NEWEST in str(path):
            raise OSError(number, os.strerror(number))
        return opened(path, *args, **kwargs)

    pathlib.Path.open = deny
    loop, _ = make_loop(folder)
    raises(OSError, "nothing was removed, so try again", lambda: loop.restore(folder / "checkpoints"))
    pathlib.Path.open = opened
    expect(tree(folder) == before, "something was changed")
    goes_on_from(folder, 60)


@fault
def no_more_files_can_be_opened(folder):
    """The real thing: every descriptor is taken."""
    saved(folder)
    loop, _ = make_loop(folder)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, limits[1]))
    raises(OSError, "Too many open files", lambda: loop.restore(folder / "checkpoints"))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    expect((folder / "checkpoints" / NEWEST / "meta.json").exists(), "the newest is gone")
    goes_on_from(folder, 60)


@fault
def a_kill_while_one_takes_the_place_of_another(folder):
    newest = saved(folder)
    newest.rename(newest.with_name(f".replaced-{newest.name}"))
    goes_on_from(folder, 60)


@fault
def an_unreadable_one_is_not_pruned(folder):
    from trainloop.checkpoints.files import CheckpointFolder

    saved(folder)
    (folder / "checkpoints" / "step-00000025" / "meta.json").write_text("{}")
    CheckpointFolder(folder / "checkpoints").prune(1)
    expect(sorted(os.listdir(folder / "checkpoints")) == ["step-00000025", NEWEST], "another one was removed, or none")


@fault
def files_of_others_between_checkpoints(folder):
    saved(folder)
    theirs = [folder / "checkpoints" / name for name in ("thesis.ckpt", "step-00000025/notes.txt", ".unfinished-x")]
    for path in theirs:
        path.write_text("precious")
    goes_on_from(folder, 60)
    expect(all(path.read_text() == "precious" for path in theirs), "a file of somebody else is gone")


@fault
def a_checkpoint_that_was_not_bound(folder):
    """As version 0.1 wrote them."""
    newest = saved(folder)
    import hashlib

    meta = json.loads((newest / "meta.json").read_text())
    del meta["arrays"], meta["sha256"]
    checksum = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    (newest / "meta.json").write_text(json.dumps({**meta, "sha256": checksum}, indent=1) + "\n")
    goes_on_from(folder, 60)
