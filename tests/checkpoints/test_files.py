"""Files of checkpoints: what is damage, what is only an error of the moment, and what is ever removed."""

import errno
import io
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import version_0_1

from trainloop import files
from trainloop.checkpoints import record
from trainloop.checkpoints.files import CheckpointFolder, DamagedCheckpointError, Saved, write

STEPS = (10, 20, 30)


def meta(step, /, **run):
    """The record of a run that stands at a step."""
    recorder = {"epochs": [{"epoch": 1, "loss": float("nan")}], "sums": {"epoch": 2, "loss": 0.5, "samples": 64.0}}
    where = {"step": step, "epoch": 1, "index": 3, "first_step": 0, "first_epoch": 0, "first_evaluations": {"f": 0}}
    where |= {"seconds": 1.5, "recorder": {**recorder, "last_finite_loss": 1e-05}, **run}
    of = {"model": {}, "data set": {"kind": "ArrayData"}}
    return {"run": where, "rollbacks": 0, "hooks": {"SaveCheckpoint": {"best_step": None}}, "of": of, "versions": {}}


def arrays(step):
    rng = np.random.default_rng(step)
    return {"model/kernel": rng.normal(size=(4, 3)), "optimizer/iterations": np.array(step)}


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, written by another process than the one that opens them now."""
    for step in STEPS:
        CheckpointFolder(tmp_path / "c").write(step, arrays(step), meta(step))
    return CheckpointFolder(tmp_path / "c")


def newest_of(folder):
    with folder.newest() as saved:
        return saved.meta["run"]["step"]


def tree(path):
    """{path: bytes} of all files below a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def flips(path, count):
    """`count` times one bit of a file is another, anywhere in it; afterwards it is as before."""
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place, bit in zip(rng.integers(0, len(whole), count), rng.integers(0, 8, count), strict=True):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        yield int(place), int(bit)
    path.write_bytes(whole)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("file", ["arrays.npz", "meta.json"])
def test_every_flipped_bit_is_damage(file, count, tmp_path):
    write(tmp_path / "it", arrays(1), meta(1))
    for place, bit in flips(tmp_path / "it" / file, count):
        with pytest.raises(DamagedCheckpointError) as caught:
            Saved(tmp_path / "it").close()
        assert file in str(caught.value) or "meta.json" in str(caught.value), (place, bit)
    Saved(tmp_path / "it").close()


def test_a_byte_order_mark_is_no_damage(tmp_path):
    write(tmp_path / "it", arrays(1), meta(1))
    file = tmp_path / "it" / "meta.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    with Saved(tmp_path / "it") as saved:
        np.testing.assert_array_equal(saved.read("model/kernel"), arrays(1)["model/kernel"])


def in_its_place(make):
    """The file is gone, and something that is no file has its name."""

    def damage(path):
        path.unlink()
        make(path)

    return damage


def sealed(**changes):
    """meta.json says something else, with a checksum that agrees."""

    def damage(path):
        shutil.rmtree(path.parent)
        write(path.parent, arrays(30), {**meta(30), **changes})

    return damage


def of_another(path):
    shutil.copy(path.parent.parent / "step-00000020" / "arrays.npz", path)


DAMAGE = {
    "cut off": ("arrays.npz", lambda path: os.truncate(path, path.stat().st_size - 1)),
    "empty": ("arrays.npz", lambda path: os.truncate(path, 0)),
    "longer": ("arrays.npz", lambda path: path.write_bytes(path.read_bytes() + b"\0")),
    "of another checkpoint": ("arrays.npz", of_another),
    "no arrays": ("arrays.npz", pathlib.Path.unlink),
    "a folder": ("arrays.npz", in_its_place(pathlib.Path.mkdir)),
    "a pipe": ("arrays.npz", in_its_place(os.mkfifo)),
    "a device": ("arrays.npz", in_its_place(lambda path: path.symlink_to("/dev/zero"))),
    "a pipe for a record": ("meta.json", in_its_place(os.mkfifo)),
    "no record": ("meta.json", pathlib.Path.unlink),
    "nested": ("meta.json", lambda path: path.write_text("[" * 100_000)),
    "a number of 10,000 digits": ("meta.json", lambda path: path.write_text('{"format": ' + "9" * 10_000 + "}")),
    "not UTF-8": ("meta.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "a list": ("meta.json", lambda path: path.write_text("[1]")),
    "a later first step": ("meta.json", sealed(run=meta(30, first_step=10**9)["run"])),
    "another step": ("meta.json", sealed(run=meta(29)["run"])),
    "no run": ("meta.json", sealed(run=None)),
    "hooks of another type": ("meta.json", sealed(hooks={"MetricsFile": 3})),
}


@pytest.mark.parametrize(("file", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_and_the_one_before_is_used(file, damage, folder, caplog):
    damage(folder.path / "step-00000030" / file)
    assert newest_of(folder) == 20
    assert caplog.text.count("a damaged checkpoint is not used") == 1
    assert "step-00000030" in caplog.text
    assert folder.steps() == [10, 20, 30]


def test_an_array_is_not_longer_than_its_file(tmp_path, monkeypatch):
    """Where somebody forges the checksums too, a header must not ask for memory that nobody has."""
    with monkeypatch.context() as forging:
        of = np.lib.format.header_data_from_array_1_0
        huge = {"shape": (10**15,)}
        forging.setattr(np.lib.format, "header_data_from_array_1_0", lambda array: of(array) | huge)
        write(tmp_path / "it", {"x": np.zeros(3)}, {})
    with pytest.raises(DamagedCheckpointError, match=r"x\.npy is not as long as its header says"):
        Saved(tmp_path / "it")


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"step": "30"}, "run.step should be a whole number from 0 to .*, received '30'"),
        ({"step": True}, "run.step should be a whole number"),
        ({"epoch": -1}, "run.epoch should be a whole number"),
        ({"index": 1e300}, "run.index should be a whole number"),
        ({"first_step": 31}, "run.first_step is 31, and the step of the checkpoint 30"),
        ({"first_epoch": 2}, "run.first_epoch is 2, and the epoch of the checkpoint 1"),
        ({"seconds": float("nan")}, "run.seconds should be a finite number, received nan"),
        ({"first_evaluations": [1]}, "run.first_evaluations should be an object"),
        ({"first_evaluations": {"f": 0.5}}, "run.first_evaluations.f should be a whole number"),
        ({"recorder": []}, "run.recorder should be an object"),
        ({"recorder": {"epochs": [3], "sums": {}}}, "run.recorder.epochs should be a list of objects"),
        ({"recorder": {"epochs": [{"loss": 1, "a": 2}, {"loss": 1}], "sums": {}}}, "should be summaries of loss, a"),
        ({"recorder": {"epochs": [], "sums": {"epoch": 1}}}, "run.recorder.sums.loss should be a number"),
        ({"step": 10**400}, r"run.step should be a whole number from 0 to 2\^53, received 10{39}\.\.\."),
    ],
)
def test_a_record_has_its_types(run, words):
    record.check(30, meta(30))
    with pytest.raises(ValueError, match=words):
        record.check(30, meta(30, **run))


# --- Errors of the moment -----------------------------------------------------------------------------------


@pytest.fixture(params=[errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES, errno.ENFILE])
def denied(request, monkeypatch):
    """Opening a file of the newest checkpoint fails: the number of the error."""
    opened = pathlib.Path.open

    def deny(path, *args, **kwargs):
        if "step-00000030" in str(path):
            raise OSError(request.param, os.strerror(request.param))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", deny)
    return request.param


def test_an_error_of_the_moment_is_raised_and_nothing_is_removed(denied, folder):
    with pytest.raises(OSError, match=r"nothing was removed, so try again .*step-00000030.*meta\.json") as caught:
        folder.newest()
    assert caught.value.errno == denied
    with pytest.raises(OSError, match="try again"):
        CheckpointFolder(folder.path).begin(20)
    folder.prune(1)
    assert folder.steps() == [10, 20, 30][1:]  # 20 is the newest of those that can be read


def test_a_disk_that_does_not_answer_in_the_midst_of_a_file_is_no_damage(folder, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    opened = files.open_file
    monkeypatch.setattr(files, "open_file", lambda path: Broken() if "30/arrays" in str(path) else opened(path))
    with pytest.raises(OSError, match="Input/output error") as caught:
        folder.newest()
    assert caught.value.errno == errno.EIO


def test_a_folder_that_cannot_be_listed_is_no_empty_one(folder, monkeypatch):
    def deny(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", deny)
    with pytest.raises(PermissionError):
        folder.newest()


# --- What is removed ----------------------------------------------------------------------------------------


def test_all_damaged_is_not_none(folder):
    for step in STEPS:
        (folder.path / f"step-{step:08d}" / "meta.json").write_text("{}")
    before = tree(folder.path)
    with pytest.raises(DamagedCheckpointError, match=r"all checkpoints in .* are damaged, nothing was removed: .*30"):
        folder.newest()
    with pytest.raises(ValueError, match=r"holds a checkpoint of step 10, damaged .*, this run stands at step 0"):
        folder.begin(0)
    assert tree(folder.path) == before


def test_a_damaged_one_behind_a_run_is_set_aside(folder):
    (folder.path / "step-00000030" / "meta.json").write_text("{}")
    before = tree(folder.path / "step-00000030")
    assert newest_of(folder) == 20
    folder.begin(20)
    assert folder.steps() == [10, 20]
    assert tree(folder.path / "damaged-step-00000030") == before
    folder.remove_all()
    assert not folder.path.exists()


def test_one_that_cannot_be_read_is_not_pruned(folder, caplog):
    os.truncate(folder.path / "step-00000010" / "arrays.npz", 5)
    folder.write(40, arrays(40), meta(40))
    folder.prune(1)
    folder.prune(1)
    assert folder.steps() == [10, 40]
    assert caplog.text.count("a checkpoint that cannot be read is left where it is") == 1


def test_files_of_others_stay(folder):
    notes = folder.path / "step-00000010" / "notes.txt"
    notes.write_text("kept")
    foreign = [folder.path / name for name in ("other.ckpt", ".unfinished-thesis", "step-1", "step-000000010")]
    for path in foreign:
        path.write_text("kept")
    (folder.path / ".unfinished-step-00000040").mkdir()
    folder.begin(30)
    assert not (folder.path / ".unfinished-step-00000040").exists()
    folder.prune(1)
    assert folder.steps() == [10, 30]
    folder.write(10, arrays(10), meta(10))
    folder.remove_all()
    assert folder.steps() == []
    kept = [*foreign, folder.path / "damaged-step-00000010" / "notes.txt"]
    assert [path.read_text() for path in kept] == ["kept"] * len(kept)


def test_what_a_link_leads_to_stays(folder, tmp_path):
    elsewhere = folder.path.rename(tmp_path / "elsewhere") / "step-00000030"
    folder.path.mkdir()
    (folder.path / "step-00000030").symlink_to(elsewhere)
    folder.remove_all()
    assert tree(elsewhere)


def test_a_kill_while_one_takes_the_place_of_another_loses_neither(folder):
    path = folder.path / "step-00000030"
    path.rename(files.replaced(path))
    shutil.copytree(folder.path / "step-00000020", folder.path / ".unfinished-step-00000030")
    assert folder.steps() == [10, 20, 30]
    assert newest_of(folder) == 30
    folder.begin(30)
    assert sorted(os.listdir(folder.path)) == [f"step-{step:08d}" for step in STEPS]
    assert newest_of(folder) == 30


def test_what_version_0_1_wrote_is_used_and_said_not_to_be_bound(caplog):
    folder = CheckpointFolder(version_0_1.FOLDER / "checkpoints" / "adam")
    assert newest_of(folder) == version_0_1.STEPS
    assert "did not bind meta.json and arrays.npz to each other" in caplog.text


def test_a_record_is_json_to_read(folder):
    content = json.loads((folder.path / "step-00000010" / "meta.json").read_text())
    assert set(content["arrays"]) == {"bytes", "sha256"}
    assert content["arrays"]["bytes"] == (folder.path / "step-00000010" / "arrays.npz").stat().st_size
