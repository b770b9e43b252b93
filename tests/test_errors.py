"""What is not installed is named in one line, with the extra that brings it."""

import sys

import pytest
from networks import blobs, crossentropy, dense_net

import trainloop as tl
from trainloop.errors import needed_for
from trainloop.runs.directory import RunDirectory, write_results


@pytest.fixture
def without(monkeypatch):
    """A function that makes a package one that cannot be imported, with everything that was imported because of it."""

    def hide(package, *dependants):
        for name in [name for name in sys.modules if name == package or name.startswith((f"{package}.", *dependants))]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return hide


def test_what_is_installed_is_imported():
    with needed_for("this", "plot"):
        import numpy

    assert numpy.pi > 3


def test_tables_say_which_extra_brings_them(without):
    without("sklearn")
    with pytest.raises(ImportError, match=r"the data set 'wine' needs scikit-learn, .* extra \[data\] .* '\.\[data\]'"):
        tl.load("wine")
    assert tl.load("digits").classes == 10


def test_a_run_without_matplotlib_keeps_its_model_and_says_which_extra_draws(without, tmp_path):
    loop = tl.TrainLoop(dense_net(), tl.SimpleGD(0.1), crossentropy())
    result = loop.run(blobs(), steps=2)
    directory = RunDirectory(tmp_path / "run")
    directory.begin({})
    without("matplotlib", "trainloop.plots.")
    message = write_results(directory, loop, result, "title", resumed=False)
    assert message.startswith(
        "no curves.png: drawing figures needs matplotlib, which is not installed; the extra [plot]"
    )
    assert directory.model.exists()
    assert not directory.curves.exists()
    directory.release()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_comparing_says_so_before_it_begins(without, package, tmp_path, capsys, monkeypatch):
    from trainloop.cli.common import run_main
    from trainloop.cli.compare import compare

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trainloop", "adam"])
    without(package)
    with pytest.raises(SystemExit, match="2"):
        run_main(compare)
    assert f"Error: a report of a comparison needs {package}, which is not installed; the extra [compare]" in (
        capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
