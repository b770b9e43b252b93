"""The rules of the architecture, read off the source."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "trainloop"

# Who may import whom: modules only from lower layers, or from their own where no circle arises.
LAYERS = [
    {"status", "storage_choice", "checks", "array_checks", "durable", "run_lock", "signals", "xla"}
    | {"json_values", "peak_memory", "picture", "eagerly"},
    {"checkpoint_file", "iterator_state", "random_state", "side_effects"}
    | {"data", "data_split", "datasets", "data_files", "tables", "sequences"}
    | {"layout", "linalg", "models", "derivatives", "stored", "typing", "unmade"},
    {
        "row_writing",
        "shards",
        "whole_array",
        "spread_rows",
        "panels",
        "rank_one_sum",
        "dilation_product",
        "matrix_change",
        "matrix_storage",
        "stored_sum",
        "stored_product",
        "history_storage",
        "matrix_conversion",
        "shared_matrix",
    }
    | {"vector_ring", "feeds"},
    {"batch_loss", "objective", "function_objective", "model_objective", "evaluations"}
    | {"replicas", "replicated_objective"},
    {"line", "interpolation", "backtracking", "more_thuente", "secant2", "linesearch", "trust_region"}
    | {"cmaes_strategy", "cmaes_covariance"},
    {
        "state",
        "refusals",
        "fusion",
        "saved_variables",
        "whole_vector",
        "proposed_step",
        "optimizer",
        "wrapper",
        "metrics",
        "reconstruction",
        "memory",
        "memory_plan",
    },
    {"algorithms"},
    {"checkpoint_folder", "checkpoint", "saving", "monitor", "endings", "nonfinite", "diagnosis", "nan_in_state"}
    | {"watching", "layer_norms", "inspection", "distributions"}
    | {
        "history",
        "hooks",
        "workers",
        "agreement",
        "pace",
        "engine",
        "bookkeeping",
        "loop",
        "loop_arguments",
        "writers",
        "tensorboard_file",
        "display",
        "live_view",
        "report",
        "results",
        "run_directory",
        "run_log",
    }
    | {"minimize", "stopping", "loop_arguments"},
    {"user_code", "plugins", "assembly", "run_config", "dry_run", "testing", "comparison", "devices", "__init__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
METHODS = LEVEL["algorithms"]

# The only places that write variables.
WRITERS = {
    "layout",
    "row_writing",
    "whole_array",
    "spread_rows",
    "panels",
    "rank_one_sum",
    "dilation_product",
    "matrix_storage",
    "stored_sum",
    "stored_product",
    "history_storage",
    "memory",
    "whole_vector",
    "saved_variables",
    "evaluations",
    "checkpoint",
    "side_effects",
}
WRITERS |= {"replicas", "replicated_objective", "metrics"}
WRITERS |= {"minimize"}  # f and g where x is, beside the vector
WRITERS |= {"testing"}  # resets what it puts to the test

SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(tree):
    """Every dotted name a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_source(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = module_of(path)
    for name in imported(tree):
        assert not name.startswith(("tensorflow.python", "keras.src")), f"{path.name} imports the private {name}"
        if name.startswith("trainloop.") and name != "trainloop.__version__":
            other = name.split(".")[1]
            assert LEVEL[other] <= LEVEL[own], f"{own} imports {other} of a higher layer"
            assert not (LEVEL[own] > METHODS and own not in LAYERS[-1] and other == "algorithms"), (
                f"{own} knows a method"
            )
    writes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("assign")]
    assert not writes or own in WRITERS, f"{own} assigns to variables in line {writes[0].lineno}"
    prints = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "print"]
    assert not prints, f"{own} prints in line {prints[0].lineno}"


def test_methods_do_not_know_each_other():
    for path in (PACKAGE / "algorithms").glob("*.py"):
        if path.name != "__init__.py":
            names = list(imported(ast.parse(path.read_text(encoding="utf-8"))))
            assert not [name for name in names if name.startswith("trainloop.algorithms")], path.name


def test_importing_needs_nothing_that_only_some_commands_need():
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        "import trainloop; new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['trainloop']"


@pytest.mark.parametrize(
    "words",
    [["train.py", "--help"], ["benchmark.py", "loop", "--help"], ["compare.py", "--help"], ["launch.py", "--help"]],
)
def test_help_does_not_import_tensorflow(words):
    code = (
        f"import runpy, sys; sys.argv = {words}; sys.path.insert(0, 'scripts')\n"
        f"try: runpy.run_path('scripts/{words[0]}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Usage:" in done.stdout
    assert done.stdout.strip().endswith("False")
