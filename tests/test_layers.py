"""The rules of the architecture that are read off the source; import-linter and ruff hold the others, see setup.cfg."""

import ast
import contextlib
import pathlib
import subprocess
import sys

import pytest
from environment import ROOT

PACKAGE = ROOT / "trainloop"

# The only places that write variables. `minimize` holds f and g beside the vector, `testing` resets what it tests.
WRITERS = {
    *("checkpoints/contents", "distributed/replicas", "distributed/shards", "loop/metrics", "loop/minimization"),
    *("hooks/stopping", "loop/handed_on", "loop/keras_fit", "loop/minimizer", "loop/terms"),
    *("matrices/dense", "matrices/dilation_product", "matrices/factored", "matrices/rank_one_sum", "matrices/rows"),
    *("objectives/counting", "objectives/placement", "objectives/replicated", "objectives/side_effects"),
    *("optimizer/base", "optimizer/saving", "optimizer/state", "testing/conformance", "vectors/layout"),
}

SOURCES = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}


def writes(path):
    """Lines in which something is assigned to a variable."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("assign")]


@pytest.mark.thorough
def test_nobody_else_assigns_to_variables():
    assert {name: writes(path) for name, path in SOURCES.items() if writes(path) and name not in WRITERS} == {}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_writer_writes(name):
    assert writes(SOURCES[name])


@contextlib.contextmanager
def files_entered():
    """A set that gets the names of the files of this package whose functions run inside."""
    entered = set()

    def note(frame, event, _):
        path = pathlib.Path(frame.f_code.co_filename)
        if event == "call" and frame.f_code.co_name != "<module>" and PACKAGE in path.parents:
            entered.add(str(path.relative_to(PACKAGE).with_suffix("")))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(before)


def test_a_product_on_one_device_knows_nothing_of_shards():
    import tensorflow as tf
    from matrix_cases import with_variables

    from trainloop import SharedMatrix

    B, _ = with_variables(SharedMatrix.identity(5, storage="dense"))
    with files_entered() as entered:
        B @ tf.ones([5])
    assert entered == {"matrices/shared_matrix", "matrices/changes", "matrices/dense"}


@pytest.mark.thorough
def test_a_step_is_read_in_few_files(monkeypatch):
    """From a batch to the commit, with the trace of the loss."""
    from networks import blobs, crossentropy, dense_net

    from trainloop import TestGD, TrainLoop
    from trainloop.loop.step import Steps

    train, steps = Steps.train, []

    def watched(self, batch):
        with files_entered() as entered:
            done = train(self, batch)
        steps.append(entered)
        return done

    monkeypatch.setattr(Steps, "train", watched)
    TrainLoop(dense_net(), TestGD(storage="dense"), crossentropy()).run(blobs(), steps=1, verbose=0)
    (entered,) = steps
    assert len(entered) <= 26
    assert not any(name.startswith("distributed/") for name in entered)


def test_few_modules_lie_outside_of_folders():
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_no_module_has_the_name_of_a_public_function():
    import trainloop

    functions = {name for name in trainloop.__all__ if not isinstance(getattr(trainloop, name), type(trainloop))}
    assert not functions & {path.stem for path in PACKAGE.glob("*.py")}


def run(code, *words):
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.thorough
def test_importing_needs_nothing_that_only_some_commands_need():
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        "import trainloop; new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    assert run(code) == "['trainloop']"


PROGRAMS = ["train.py", "compare.py", "launch.py", "benchmark.py loop"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_does_not_import_tensorflow(program):
    name, *words = program.split()
    code = (
        "import runpy, sys; sys.path.insert(0, 'scripts')\n"
        f"sys.argv = ['scripts/{name}', *{words}, '--help']\n"
        f"try: runpy.run_path('scripts/{name}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('tensorflow' in sys.modules)"
    )
    printed = run(code)
    assert "Usage:" in printed
    assert printed.endswith("False")


@pytest.mark.parametrize("words", ["", "train", "compare", "launch", "compare networks"])
@pytest.mark.thorough_after(1)
def test_help_of_the_console_command_does_not_import_tensorflow(words):
    """`-X importtime` names every module that a process imports."""
    command = [sys.executable, "-X", "importtime", "-m", "trainloop", *words.split(), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Usage: python -m trainloop" in done.stdout
    assert "| trainloop.cli.main" in done.stderr.replace(" " * 2, " ")
    assert "tensorflow" not in done.stderr


@pytest.mark.thorough
def test_public_names_are_there_in_a_program_that_loads_them_late():
    code = (
        "import sys; sys.argv[0] = '/usr/bin/trainloop'\n"
        "import trainloop as tl; early = 'tensorflow' in sys.modules\n"
        "from trainloop import load, TrainLoop\n"
        "print(early, tl.TestGD.__name__, tl.hooks.Hook is tl.Hook, dir(tl) == sorted(tl.__all__))\n"
        "print(hasattr(tl, 'nothing'))"
    )
    assert run(code) == "False TestGD True True\nFalse"


@pytest.mark.thorough
def test_a_module_of_such_a_program_can_be_imported_without_the_public_names():
    code = (
        "import sys; sys.argv[0] = 'scripts/benchmark.py'\n"
        "from trainloop.checkpoints import files\n"
        "print('trainloop.public' in sys.modules)"
    )
    assert run(code) == "False"


@pytest.mark.thorough
def test_a_saved_optimizer_is_found_by_whoever_imports_the_package_before_keras(tmp_path):
    model = ROOT / "tests" / "version_0_1" / "models" / "adam.keras"
    code = "import sys, trainloop, keras; print(type(keras.models.load_model(sys.argv[1]).optimizer).__name__)"
    assert run(code, str(model)) == "Adam"
