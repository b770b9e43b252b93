"""`trainloop inspect` on a run of the command line."""

import hashlib

import pytest
from click.testing import CliRunner

from trainloop.cli.inspect import inspect
from trainloop.cli.train import train

WORDS = [
    "--dataset",
    "wine",
    "--model",
    "softmax_regression",
    "--optimizer",
    "lbfgs",
    "--batch-size",
    "full",
    "--dtype",
    "float64",
]


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "wine"
    done = CliRunner().invoke(train, [*WORDS, "--steps", "5", "--run-dir", str(folder), "--quiet"])
    assert done.exit_code == 0, done.output
    return folder


def test_the_page_has_everything_and_the_run_stays_as_it_is(run, tmp_path):
    before, page = digests(run), tmp_path / "page.html"
    done = CliRunner().invoke(inspect, [str(run), "--top", "3", "--kind", "ggn", "--output", str(page)])
    assert done.exit_code == 0, done.output
    assert digests(run) == before
    text = page.read_text(encoding="utf-8")
    for part in ("softmax_regression on wine with lbfgs", "after step 5", "ggn, ", "sharpness", 'id="eigenvalues"'):
        assert part in text
    assert text.count("data:image/png;base64,") == 4


def test_a_folder_without_a_run_is_one_line(tmp_path):
    done = CliRunner().invoke(inspect, [str(tmp_path)])
    assert done.exit_code == 2
    assert "config.json" in done.output


def test_a_run_without_weights_says_so(run, tmp_path):
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    done = CliRunner().invoke(inspect, [str(tmp_path)])
    assert done.exit_code == 2
    assert "has no checkpoint and no model.keras; run it first" in done.output
