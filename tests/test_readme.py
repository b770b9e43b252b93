"""What the README and the pages in docs show runs."""

import re

import numpy as np
import pytest
from documentation import run_blocks
from environment import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = sorted((ROOT / "docs").glob("*.md"))
REFERENCE = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "reference").glob("*.md")))


def test_code_blocks_run_in_order(tmp_path, monkeypatch, float32, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(ROOT / "README.md")
    assert names["result"].epochs["val_accuracy"][-1] > 0.8
    assert "[" in capsys.readouterr().out


def solves(names):
    """Whether the page on fitting has found what it says."""
    r, w = names["r"].numpy(), names["found"].x
    return all(
        [
            np.all(np.abs(w - [2.0, 1.5]) < 3 * np.sqrt(np.diag(names["covariance"]))),
            names["solved"].history["rel_l2"][-1] < 1e-4,
            abs(names["fitted"].history["kappa"][-1] - 0.25) < 5e-3,
            abs(names["fitted"].history["term/misfit"][-1] - 1e-4) < 3e-5,
            abs(r @ r / float(names["objective"].value(names["w"])) - 1) < 1e-12,
        ]
    )


# What the last block of a page leaves shows whether it did what it says.
OUTCOMES = {
    "an-optimizer-with-a-line-search": lambda names: names["result"].history["loss"][-1] < 0.2,
    "an-optimizer-with-a-matrix": lambda names: names["found"].f < 1e-10,
    "checkpoints": lambda names: names["start_or_continue"]().step == 46,
    "command-line": lambda names: names["parts"].model.count_params() > 0 and names["load"]()[0][0].shape == (400, 4),
    "comparing": lambda names: len(names["steps"]) == 6 and '"loss"' in names["text"],
    "debugging": lambda names: len(names["history"]["loss"]) == 20 and len(names["eager"].history["loss"]) == 3,
    "entry-points": lambda names: abs(names["rate"].numpy() - np.log(10)) < 1e-4 and names["second"].step == 10,
    "curvature": lambda names: names["trace"].value > names["eigenvalues"][0] > 0 and names["sharpness"] > 0,
    "fitting-and-differential-equations": lambda names: solves(names),
    "from-a-working-program": lambda names: abs(names["rate"] - 3) < 1e-6 and names["history"]["loss"][-1] < 0.3,
    "from-the-old-keras-api": lambda names: names["g"].shape == (4,),
    "losses-in-conflict": lambda names: (
        names["noise"][9] > 0
        and names["result"].history["loss"][-1] < 0.2 * names["result"].history["loss"][0]
        and -1 <= names["result"].history["cosine/pde,bc"][-1] <= 1
    ),
    "several-devices": lambda names: names["best_workers"](99, batch=64, bandwidth=0.125e9, **names["plan"]) == 1,
    "shared-matrix": lambda names: names["found"].status.name == "CERTIFIED",
    "solving-differential-equations": lambda names: names["solved"].history["rel_l2"][-1] < 1e-7,
    "using-the-loop-in-research-code": lambda names: abs(names["made"].numpy().mean() - 3) < 0.5,
    "what-your-loss-may-do": lambda names: abs(names["there"] - names["by_hand"]) < 1e-5 * names["by_hand"],
    "your-first-optimizer": lambda names: names["result"].epochs["val_accuracy"][-1] > 0.6,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.thorough_after(1)
def test_a_page_runs(page, tmp_path, monkeypatch, float32):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(page)
    assert OUTCOMES[page.stem](names) if page.stem in OUTCOMES else set(names) == {"__name__"}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_page_on_several_devices_runs(capsys):
    run_blocks(ROOT / "docs" / "several-devices.md")
    assert "1 Gbit/s, batch 64: 1 workers" in capsys.readouterr().out


@pytest.mark.parametrize("end", ["pytest", "scripts/train.py"])
def test_the_commands_that_ci_runs_are_there_once(end):
    assert len(re.findall(rf"^python3 -m venv .*{end}$", README, re.MULTILINE)) == 1
    assert end in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_public_class_and_function_is_in_the_reference():
    import trainloop as tl

    names = [name for name in tl.__all__ if callable(getattr(tl, name))]
    shown = re.findall(r"^::: [\w.]*?(\w+)$", REFERENCE, re.MULTILINE) + re.findall(r"members: \[(\w+)\]", REFERENCE)
    assert set(names) <= set(shown)


def test_every_optimizer_is_in_the_table():
    from trainloop import ALGORITHMS

    for cls in ALGORITHMS.values():
        assert f"| `{cls.__name__}` |" in README
