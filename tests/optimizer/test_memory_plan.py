"""Memory plans against the variables that are made, and what happens where they do not fit."""

import logging
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop import BFGS, LBFGS, SharedMatrix, SimpleGD, SSBroyden, TestGD, VectorRing, memory
from trainloop.matrices import dense, shared_matrix
from trainloop.optimizer import memory_plan

N = 47
KIB, MIB = 2**10, 2**20
STORAGES = ["auto", "dense", "dense:0", "dense:4", "factored"]
STORAGES += [f"factored:5:{policy}" for policy in ("restart", "subspace", "dense", "error")]
METHODS = {f"{cls.__name__} {word}": (cls, {"storage": word}) for cls in (TestGD, BFGS, SSBroyden) for word in STORAGES}
METHODS |= {"LBFGS": (LBFGS, {"m": 3}), "SimpleGD": (SimpleGD, {})}

every_method = pytest.mark.parametrize(("cls", "options"), METHODS.values(), ids=METHODS.keys())


@pytest.fixture
def several_panels(monkeypatch):
    monkeypatch.setattr(dense, "SMALL", 10)
    monkeypatch.setattr(shared_matrix, "SMALL", 10)


def built(optimizer, n=N, dtype="float64"):
    optimizer.build([keras.Variable(np.zeros(n), dtype=dtype)])
    return optimizer


def state_of(optimizer):
    """The arrays of a built optimizer's state by path."""
    store = {}
    optimizer.save_own_variables(store)
    return {name[len("state.") :].replace(".", "/"): a for name, a in store.items() if name.startswith("state.")}


# --- The plan is what is made ---------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_plan_has_every_variable_that_is_made_with_its_bytes(several_panels, cls, options, dtype):
    plan = cls(**options).memory_plan(N, dtype)
    arrays = state_of(built(cls(**options), N, dtype))
    assert [entry.name for entry in plan.entries] == list(arrays)
    for entry in plan.entries:
        array = arrays[entry.name]
        assert (entry.dtype, entry.nbytes) == (array.dtype.name, array.nbytes)
        assert len(entry.shape) == array.ndim
        assert all(planned in (None, made) for planned, made in zip(entry.shape, array.shape, strict=True))
    assert plan.nbytes == sum(array.nbytes for array in arrays.values())
    assert plan.n == N


@pytest.mark.parametrize(
    ("storage", "growing"),
    [
        ("dense", set()),
        ("factored", {"left", "coefficients"}),
        ("factored:5:restart", set()),
        ("factored:5:dense", {"panel_00", "panel_01", "panel_02", "panel_03"}),
    ],
)
def test_what_grows_is_said_to_grow(several_panels, storage, growing):
    plan = TestGD(storage=storage).memory_plan(N)
    assert {entry.name.removeprefix("B/") for entry in plan.entries if None in entry.shape} == growing


def test_half_of_a_large_symmetric_matrix_in_bytes():
    """17/32 n^2 numbers in panels, 8 n that wait, and a few numbers."""
    n = 160_000
    plan = TestGD(storage="dense").memory_plan(n)
    assert 0 <= plan.nbytes - 4 * (17 * n**2 // 32 + 8 * n) < 100


@pytest.mark.parametrize(
    ("method", "workspace"),
    [
        (SimpleGD(), 0),
        (LBFGS(m=3), 0),
        (TestGD(storage="dense"), 2 * 100**2),  # what is read and what is written, for one small panel
        (TestGD(storage="factored:5:restart"), 0),
        (TestGD(storage="factored:5:subspace"), 5 * 100 + 5 + 1),  # another history
        (TestGD(storage="factored:5:dense"), 4 * 100**2),  # the numbers, and three times a panel to make them
    ],
)
def test_the_peak_is_the_state_with_five_vectors_and_what_a_commit_takes(method, workspace):
    plan = method.memory_plan(100)
    assert plan.peak == plan.nbytes + 4 * (5 * 100 + workspace)


@every_method
def test_planning_makes_nothing(cls, options):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    optimizer = cls(**options)
    plan = optimizer.memory_plan(44_426)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * KIB < 100 * MIB
    assert (plan.nbytes > 2 * 44_426**2) == options.get("storage", "").startswith("dense")
    assert not optimizer.built
    assert plan == cls(**options).memory_plan(44_426)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_a_number_of_parameters_is_checked(n):
    with pytest.raises(ValueError, match=f"n must be an integer of at least 1, received {n!r}"):
        TestGD().memory_plan(n)


# --- What does not fit ----------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_the_alternatives_and_their_sizes(monkeypatch, caplog):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 64 * MIB)
    n = 10_000
    optimizer = TestGD(storage="dense")
    with pytest.raises(ValueError, match="TestGD needs") as refusal:
        built(optimizer, n, "float32")
    plan, message = TestGD(storage="dense").memory_plan(n), str(refusal.value)
    needed = f"{plan.peak / MIB:.1f} MiB"
    assert message.startswith(f"TestGD needs {needed} during a step for n = 10,000 parameters, and 64.0 MiB are free; ")
    assert [record.message for record in caplog.records] == [str(plan)]
    assert "storage='factored:1000:restart' takes 38.2 MiB; storage='factored:100:restart' takes 3.8 MiB" in message
    assert [word for word, _ in plan.alternatives] == ["factored:1000:restart", "factored:100:restart"]
    for word, nbytes in plan.alternatives:
        B = SharedMatrix.identity(n, storage=word, updates="symmetric")
        assert nbytes == B.nbytes < plan.nbytes
    assert not optimizer.built


def test_alternatives_are_those_of_the_matrix_that_takes_most():
    """Of two that take nothing besides themselves when they change."""
    n = 3000
    leaves = {
        "history": VectorRing.empty(2, n=n),
        "B": SharedMatrix.identity(n, storage="dense"),
        "C": SharedMatrix.identity(n, storage="factored:100:restart"),
    }
    found = memory_plan.plan(leaves, n, tf.float32)
    assert found.alternatives == tuple(leaves["B"].alternatives())
    assert found.alternatives


def test_a_method_without_alternatives_says_so(monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 999)
    with pytest.raises(ValueError, match=r"LBFGS needs .* 999 B are free; use a smaller model, or an optimizer or"):
        built(LBFGS())


@pytest.mark.parametrize("missing", [0, 1])
def test_all_that_is_free_may_be_taken_and_no_byte_more(monkeypatch, missing):
    plan = TestGD().memory_plan(N, "float64")
    monkeypatch.setattr(memory_plan, "free_memory", lambda: plan.peak - missing)
    if missing:
        with pytest.raises(ValueError, match="TestGD needs"):
            built(TestGD())
    else:
        assert built(TestGD()).built


def test_a_system_that_does_not_tell_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: None)
    memory_plan.MemoryPlan(10, (), 10**18, 10**18).check_fits("Any")
    assert built(TestGD()).built


STAT = "anon 1000\ninactive_file 700\nworkingset_refault_file 5\n"
MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"meminfo": MEMINFO}, 8000 * KIB),
        ({"meminfo": MEMINFO, "memory.max": "max\n", "memory.current": "5\n"}, 8000 * KIB),
        ({"meminfo": MEMINFO, "memory.max": "5000000\n", "memory.current": "3000000\n"}, 2_000_000),
        ({"meminfo": MEMINFO, "memory.max": "50000000\n", "memory.current": "3000000\n"}, 8000 * KIB),
        ({"memory.max": "5000\n", "memory.current": "3000\n"}, 2000),
        ({"memory.max": "5000\n", "memory.current": "3000\n", "memory.stat": STAT}, 2700),
        ({"memory.max": "5000\n"}, None),
        ({}, None),
    ],
)
def test_free_is_what_both_the_machine_and_the_container_have(monkeypatch, files, free):
    monkeypatch.setattr(memory, "_read", lambda path: files.get(path.rsplit("/", 1)[1]))
    assert memory.free_memory() == free


def test_the_free_memory_of_this_machine_is_a_sensible_number():
    assert memory._read("/nowhere/at/all") is None
    free = memory.free_memory()
    assert free is None or MIB < free < 2**50


# --- What people read -----------------------------------------------------------------------------------


def test_the_text_is_a_table():
    assert str(TestGD(storage="factored").memory_plan(1_000_000)) == "\n".join(
        [
            "state for n = 1,000,000 parameters",
            "  B/times_full    []                  int32    4 B",
            "  B/scale         []                  float32  4 B",
            "  B/diagonal      []                  float32  4 B",
            "  B/left          [grows, 1,000,000]  float32  61.0 MiB",
            "  B/coefficients  [grows]             float32  64 B",
            "  B/rank          []                  int32    4 B",
            "  B/room          []                  int32    4 B",
            "  radius          []                  float32  4 B",
            "  status          []                  int32    4 B",
            "  together                                     61.0 MiB",
            "  during a step                                141.1 MiB",
            "  B: factored, a vector for every change",
        ]
    )


def test_panels_are_one_line():
    lines = str(TestGD(storage="dense").memory_plan(160_000)).splitlines()
    assert lines[1] == "  B/panel         16 arrays     float32  50.7 GiB"
    assert lines[-1] == "  B: dense, half of n x n numbers, B being symmetric; up to 8 changes wait beside it"


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("auto", "B: dense, n x n numbers, because n x n numbers take at most 64 MiB"),
        ("dense:4", "B: dense, n x n numbers; up to 4 changes wait beside it"),
        ("factored:5:error", "B: factored, a vector for up to 5 changes, then error"),
    ],
)
def test_notes_tell_how_a_matrix_is_stored_and_why(storage, message):
    assert TestGD(storage=storage).memory_plan(N).notes == (message,)


def test_auto_tells_why_a_large_matrix_is_factored():
    (note,) = TestGD().memory_plan(44_426).notes
    assert note == "B: factored, a vector for every change, because n x n numbers take more than 64 MiB"


def test_no_state_is_said_to_be_none():
    assert str(SimpleGD().memory_plan(100)) == (
        "no state, n = 100 parameters\n  together           0 B\n  during a step      2.0 KiB"
    )


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB"), (999 * KIB, "999.0 KiB")),
        *((1000 * KIB, "1.0 MiB"), (2.5 * MIB, "2.5 MiB"), (1000 * MIB, "1.0 GiB"), (5000 * 2**30, "5,000.0 GiB")),
    ],
)
def test_bytes_are_written_for_people(nbytes, words):
    assert memory_plan.in_words(nbytes) == words


def test_building_logs_the_plan(caplog):
    with caplog.at_level(logging.INFO, logger="trainloop"):
        built(BFGS(storage="dense:4"))
    (record,) = [record for record in caplog.records if record.name == "trainloop"]
    assert record.levelno == logging.INFO
    assert record.getMessage() == f"BFGS: {BFGS(storage='dense:4').memory_plan(N, 'float64')}"
