"""The rules of the architecture, read off the source."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "trainloop"


def names(text):
    return set(text.split())


# Who may import whom: modules only from lower layers, or from their own where no circle arises.
LAYERS = [
    # what knows nothing of vectors
    names("status checks array_checks durable run_lock signals xla eagerly json_values peak_memory picture user_code")
    | names("storage_choice"),
    # vectors, derivatives, data
    names("layout linalg derivatives stored typing unmade models data data_split datasets data_files tables")
    | names("sequences checkpoint_file iterator_state random_state side_effects feeds"),
    # the shared matrix
    names("shared_matrix matrix_change matrix_storage matrix_conversion panels stored_sum stored_product")
    | names("rank_one_sum dilation_product history_storage vector_ring row_writing shards spread_rows whole_array"),
    # objectives
    names("objective function_objective model_objective batch_loss evaluations replicas replicated_objective"),
    # parts of methods
    names("linesearch line interpolation backtracking more_thuente secant2 trust_region cmaes_strategy")
    | names("cmaes_covariance"),
    # the contract
    names("optimizer whole_vector state refusals fusion saved_variables proposed_step wrapper memory memory_plan")
    | names("metrics reconstruction"),
    names("algorithms"),
    # runs, which know the contract and never a method
    names("loop steps engine bookkeeping pace loop_arguments hooks watching layer_norms inspection distributions")
    | names("history nonfinite nan_in_state diagnosis endings monitor checkpoint checkpoint_folder saving workers")
    | names("agreement writers tensorboard_file display live_view report results run_directory run_log minimize")
    | names("stopping"),
    # everything
    names("plugins method_help assembly run_config dry_run testing comparison devices __init__"),
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
METHODS = LEVEL["algorithms"]

# The only places that write variables. `minimize` holds f and g beside the vector, `testing` resets what it tests.
WRITERS = (
    names("layout row_writing whole_array spread_rows panels rank_one_sum dilation_product matrix_storage stored_sum")
    | names("stored_product history_storage memory whole_vector saved_variables evaluations checkpoint side_effects")
    | names("replicas replicated_objective metrics minimize testing")
)

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
            found = imported(ast.parse(path.read_text(encoding="utf-8")))
            assert not [name for name in found if name.startswith("trainloop.algorithms")], path.name


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
