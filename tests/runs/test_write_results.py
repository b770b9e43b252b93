"""What a run leaves when it is over."""

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
