"""What a run leaves when it is over."""

import os
import types

import pytest

from trainloop.runs.directory import RunDirectory, write_results


def test_a_picture_that_fails_does_not_cost_the_model(tmp_path):
    def plot(path, title):
        raise ValueError(title)

    model = types.SimpleNamespace(save=lambda path: path.write_text("saved"))
    loop, result = types.SimpleNamespace(model=model), types.SimpleNamespace(plot=plot)
    with pytest.raises(ValueError, match="no such glyph"):
        write_results(RunDirectory(tmp_path), loop, result, "no such glyph", resumed=False)
    assert (tmp_path / "model.keras").read_text() == "saved"


class Broken:
    """A model and a result that fail to be written, each after half of it."""

    def __init__(self, *names):
        self._names = names
        self.model, self.history = types.SimpleNamespace(save=lambda path: self._write(path, "model.keras")), {}

    def plot(self, path, title):
        self._write(path, "curves.png")

    def _write(self, path, name):
        path.write_text("half")
        if name in self._names:
            raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("names", [["model.keras"], ["curves.png"], ["model.keras", "curves.png"]])
def test_a_full_disk_leaves_no_half_file_and_costs_no_other(names, tmp_path):
    directory, parts = RunDirectory(tmp_path), Broken(*names)
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "model.keras").write_text("before")
    message = write_results(directory, parts, parts, "title", resumed=False)
    assert message == "; ".join(f"no {name}: [Errno 28] No space left on device" for name in names)
    assert (tmp_path / "model.keras").read_text() == ("before" if "model.keras" in names else "half")
    assert (tmp_path / "curves.png").exists() == ("curves.png" not in names)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_gone_gets_the_model_all_the_same(tmp_path):
    directory, parts = RunDirectory(tmp_path / "gone"), Broken()
    message = write_results(directory, parts, parts, "title", resumed=True)
    assert (tmp_path / "gone" / "model.keras").exists()
    assert message.startswith("curves.png has the last process only: ")
    assert message.endswith("no config.json: it was removed; no metrics.jsonl: it was removed")
