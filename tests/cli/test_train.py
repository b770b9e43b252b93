"""The command line, as a user meets it: in a process of its own, or in this one where only words and files count."""

import json
import re
import resource
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from environment import ROOT

from trainloop import ALGORITHMS, DATASETS, MODELS, WRAPPERS, TrainLoop
from trainloop.files import RunLock

TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]


def train(*arguments, cwd):
    return subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short run that several tests look at."""
    folder = tmp_path_factory.mktemp("run")
    done = train("--epochs", "2", "--steps", "40", "--run-dir", "here", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "here", done


def result_in(printed):
    """The line with what a run has come to, which is the first of the last paragraph, or all there is of it."""
    (line,) = [line for line in printed if line.startswith(("test loss", "loss"))]
    return line


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.thorough
def test_plain_lines_and_nothing_else(run):
    done = run[1]
    first, *plan, epoch, last, files, again = done.stdout.splitlines()
    assert plan[0] == "state for n = 44,426 parameters"
    assert "factored" in plan[-1]
    assert first.startswith("lenet5 on digits with testgd: n = 44,426 parameters")
    assert epoch.startswith("epoch 1  step 23")
    assert last.startswith("test loss")
    assert files == "Model, log and curves in here"
    assert re.fullmatch(r"Repeat it with: \S*python\S* \S*train\.py --config here/config\.json", again)
    assert done.stderr == ""


def test_metrics_file_has_every_step_and_every_epoch(run):
    records = lines(run[0] / "metrics.jsonl")
    steps = [r for r in records if r["kind"] == "step"]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert [r["step"] for r in steps] == list(range(1, 41))
    assert [r["epoch"] for r in steps] == [1] * 23 + [2] * 17
    assert set(steps[0]) == {"kind", "step", "epoch", "samples", "loss", "grad_norm", "radius", "status", "B/rank"}
    end, test = records[-2:]
    assert (end["kind"], end["status"], end["step"], end["evaluations/gradient"]) == ("end", "FINISHED", 40, 40)
    assert end["peak_memory"] > 100e6
    assert test.keys() == {"kind", "loss", "accuracy"}
    (epoch,) = epochs
    assert epoch["loss"] == pytest.approx(
        np.average([r["loss"] for r in steps[:23]], weights=[r["samples"] for r in steps[:23]])
    )
    assert {"accuracy", "val_loss", "val_accuracy", "seconds"} <= set(epoch)


def test_config_repeats_the_run(run):
    config = json.loads((run[0] / "config.json").read_text())
    assert config["optimizer"] == "testgd"
    assert config["optimizer_config"]["rad"] is None
    assert config["seed"] == 0
    assert config["parameters"] == 44_426
    assert {"tensorflow", "keras", "numpy", "python", "trainloop"} <= set(config["versions"])


def test_steps_can_be_looked_into(train_here, tmp_path):
    looks = ("--layer-norms", "--eager", "--model", "softmax_regression", "--steps", "2", "--run-dir", "looked")
    code, printed, _ = train_here(*looks)
    assert code == 0
    config = json.loads((tmp_path / "looked" / "config.json").read_text())
    assert (config["layer_norms"], config["eager"]) == (True, True)
    first, *_ = lines(tmp_path / "looked" / "metrics.jsonl")
    assert {f"norm/{kind}/mlp/logits/kernel" for kind in ("x", "g", "step")} <= set(first)
    assert 0 <= first["angle/step"] <= 180
    assert "norm/" not in "".join(printed)


def test_model_file_holds_what_was_reported(run, float32):
    from trainloop import TestGD, TrainLoop, load

    model = keras.models.load_model(run[0] / "model.keras")
    digits = load("digits")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    measured = TrainLoop(model, TestGD(), loss, metrics=["accuracy"]).evaluate((digits.x_test, digits.y_test))
    reported = f"test loss {measured['loss']:.4f}, test accuracy {measured['accuracy']:.2%}"
    assert result_in(run[1].stdout.splitlines()).startswith(reported)


def test_curves_are_a_picture(run):
    content = (run[0] / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


def test_a_folder_with_a_run_is_not_touched_unless_asked(run, train_here):
    before = (run[0] / "config.json").read_bytes()
    code, _, complaints = train_here("--steps", "1", "--run-dir", str(run[0]))
    assert code == 2
    assert "already holds a run" in complaints[-1]
    assert (run[0] / "config.json").read_bytes() == before


@pytest.mark.thorough
def test_an_interrupted_run_is_continued_by_the_same_command(tmp_path):
    """SIGTERM in the midst, then --resume: the files of a run of its own, but for the clock."""
    options = ["--model", "softmax_regression", "--epochs", "100000", "--deterministic", "--checkpoint-steps", "40"]
    begun = subprocess.Popen(
        [*TRAIN, *options, "--run-dir", "a"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in begun.stdout:  # lines of short epochs are a second apart
        if line.startswith("epoch ") and int(line.split()[1]) >= 3:
            break
    begun.send_signal(signal.SIGTERM)
    out, err = begun.communicate(timeout=100)
    assert (begun.returncode, err) == (
        143,
        "SIGTERM: finishing the compiled block and saving a checkpoint; press again to quit immediately\n",
    )
    last = out.splitlines()[-1]
    stopped = int(re.match(r"Stopped after step (\d+)\. Continue with: \S*python\S* .*--run-dir a --resume$", last)[1])
    assert not (tmp_path / "a" / "model.keras").exists()

    options[3] = str(stopped // 23 + 3)  # goals are totals, and may change
    resumed = train(*options, "--run-dir", "a", "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"continues after step {stopped}" in resumed.stdout.splitlines()
    whole = train(*options, "--run-dir", "b", cwd=tmp_path)
    logs = [lines(tmp_path / name / "metrics.jsonl") for name in "ab"]
    for records in logs:
        for record in records:
            record.pop("seconds", None)
            record.pop("peak_memory", None)
    assert logs[0] == logs[1]
    results = [result_in(done.stdout.splitlines()).rpartition(",")[0] for done in (resumed, whole)]
    assert results[0] == results[1]


@pytest.mark.thorough
def test_a_full_disk_costs_files_and_not_the_run(tmp_path):
    """No file may get longer than 4,000 bytes."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    words = ["--dataset", "wine", "--optimizer", "adam", "--epochs", "30", "--tensorboard", "--run-dir", "a"]
    done = subprocess.run(
        [*TRAIN, *words, "--quiet"], cwd=tmp_path, capture_output=True, text=True, preexec_fn=limited, timeout=300
    )
    assert (done.returncode, done.stdout[:9]) == (0, "test loss"), done.stderr
    for what in (
        "a/metrics.jsonl cannot be written",
        "a/tensorboard cannot be written",
        "checkpoint of step 90 was not",
    ):
        assert done.stderr.count(what) == 1, done.stderr
    assert re.search(r"a/metrics\.jsonl: missing is \d+ lines", done.stderr)
    assert re.search("no model.keras: .*; no curves.png: .*File too large", done.stderr)
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_file()) == [
        *("config.json", "lock", "metrics.jsonl")
    ]
    resumed = train("--run-dir", "a", "--resume", "--quiet", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "a" / "model.keras").exists()


def test_a_users_mistake_is_named_by_its_line_and_the_files_are_readable(tmp_path, train_here):
    (tmp_path / "mine.py").write_text(
        "from trainloop import SimpleGD\n"
        "class Mine(SimpleGD):\n"
        "    def update(self, x, g, state):\n"
        "        return x - self.rate * g, {}\n"
    )
    options = ["--model", "softmax_regression", "--optimizer", "mine.py:Mine", "--run-dir", "a"]
    code, _, complaints = train_here(*options)
    assert code == 1
    assert re.match(r"Error: AttributeError at .*mine\.py:4 in update: .*no attribute 'rate'", complaints[-1])
    assert [r["kind"] for r in lines(tmp_path / "a" / "metrics.jsonl")] == ["end"]
    assert json.loads((tmp_path / "a" / "config.json").read_text())["optimizer"] == "mine.py:Mine"


@pytest.mark.thorough
def test_what_is_no_mistake_of_a_users_code_is_not_blamed_on_a_line(train_here, monkeypatch):
    monkeypatch.setattr(TrainLoop, "evaluate", TrainLoop.run)  # which raises where a run is going on
    code, _, err = train_here("--dataset", "wine", "--epochs", "1", "--quiet")
    assert code == 1
    assert err[-1].startswith("Error: RuntimeError: this loop runs already")


@pytest.mark.thorough
def test_overwrite_replaces_a_run(tmp_path, train_here):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("old")
    (folder / "notes.txt").write_text("kept")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events.out.tfevents.0000000001.trainloop").write_text("old")
    code, *_ = train_here("--model", "softmax_regression", "--steps", "2", "--run-dir", str(folder), "--overwrite")
    assert code == 0
    assert [r["step"] for r in lines(folder / "metrics.jsonl") if r["kind"] == "step"] == [1, 2]
    assert (folder / "notes.txt").read_text() == "kept"
    assert not (folder / "tensorboard").exists()


@pytest.mark.thorough
def test_a_run_is_repeated_from_its_config(tmp_path, train_here):
    npz(tmp_path / "mine.npz")
    options = ["--dataset", "mine.npz", "--model", "softmax_regression", "-o", "rad=500", "--seed", "3", "--steps", "6"]
    code, out, err = train_here(*options, "--batch-size", "8", "--tensorboard", "--quiet", "--run-dir", "a")
    assert (code, err) == (0, [])
    (last,) = out
    code, out, err = train_here("--config", "a/config.json")
    assert (code, err) == (0, [])
    assert out[0] == "repeats a/config.json"
    assert result_in(out).rpartition(",")[0] == last.rpartition(",")[0]
    (again,) = (tmp_path / "runs").iterdir()
    logs = [lines(folder / "metrics.jsonl") for folder in (tmp_path / "a", again)]
    of_this_process = {"seconds": 0, "peak_memory": 0}
    assert [record | of_this_process for record in logs[0]] == [record | of_this_process for record in logs[1]]
    assert len(list((again / "tensorboard").iterdir())) == 1

    code, out, _ = train_here("--config", "a/config.json", "--seed", "4", "-o", "storage=dense", "--dry-run")
    assert code == 0
    assert out[0] == (
        "repeats a/config.json, but with options rad=500 storage=dense instead of rad=500, seed 4 instead of 3"
    )
    npz(tmp_path / "mine.npz", y_test=np.zeros(10, "uint8"), y_train=2 - np.arange(20) % 3)
    code, _, err = train_here("--config", "a/config.json", "--run-dir", "b")
    assert code == 2
    assert re.search("data_fingerprint was '[0-9a-f]{16}', here it is '[0-9a-f]{16}'", err[-1])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": "1"}, "seed must be int, received '1'"),
        ({"seed": True}, "seed must be int, received True"),
        ({"seed": -1}, "seed: -1 is not in the range"),
        ({"seed": None}, "seed must be int, received None"),
        ({"epochs": 1.5}, "epochs must be int, received 1.5"),
        ({"jit": "yes"}, "jit must be bool, received 'yes'"),
        ({"dataset": 5}, "dataset must be str, received 5"),
        ({"options": ["rad=3", 4]}, "options must be a list of str, received ['rad=3', 4]"),
        ({"f_target": [1]}, "f_target must be float or int, received [1]"),
        ({"on_nonfinite": "hope"}, "on_nonfinite: 'hope' is not one of"),
        ({"batch_size": 0}, "batch_size: 0 is neither a positive number"),
        ({"then": ["lbfgs", 4]}, "then must be a list of str, received ['lbfgs', 4]"),
        ({"then": ["lbfgs:--steps=0"]}, "then: --steps must be a positive integer, received '0'"),
        ({"code": [1]}, "code is [1]"),
    ],
)
def test_a_config_has_the_types_of_the_command_line(changes, words, run, tmp_path, train_here):
    (tmp_path / "a").mkdir()
    config = json.loads((run[0] / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | changes))
    for arguments in (["--config", "a/config.json", "--dry-run"], ["--run-dir", "a", "--resume"]):
        code, _, (line,) = train_here(*arguments)
        assert (code, line.startswith("Error: a/config.json"), words in line) == (2, True, True), line


def test_a_byte_order_mark_before_a_config_is_read(run, tmp_path, train_here):
    content = (run[0] / "config.json").read_bytes()
    for text in (b"\xef\xbb\xbf" + content, content.decode().encode("utf-16")):
        (tmp_path / "config.json").write_bytes(text)
        assert train_here("--config", "config.json", "--dry-run")[0] == 0


@pytest.mark.thorough
def test_a_config_of_somebody_else_runs_nothing_unasked(tmp_path, train_here):
    (tmp_path / "theirs.py").write_text(
        "import pathlib\npathlib.Path('ran').write_text('x')\nimport numpy as np\nx = np.ones((4, 2), 'float32')\n"
        "def load():\n    return (x, x), (x, x)\n"
    )
    assert train_here("--dataset", "theirs.py:load", "--optimizer", "adam", "--steps", "2", "--run-dir", "a")[0] == 0
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "ran").unlink()
    sys.modules.pop("theirs")
    code, _, err = train_here("--config", "a/config.json", "--dry-run")
    assert (code, (tmp_path / "ran").exists()) == (0, True)
    assert err[0] == f"runs theirs.py (SHA-256 {config['code']['theirs.py']}...), because a/config.json names it"
    (tmp_path / "ran").unlink()
    sys.modules.pop("theirs")
    (tmp_path / "theirs.py").write_text((tmp_path / "theirs.py").read_text() + "# edited\n")
    for words in (
        ["--config", "a/config.json"],
        ["--config", "a/config.json", "--dry-run"],
        ["--run-dir", "a", "--resume"],
    ):
        code, _, err = train_here(*words)
        assert (code, (tmp_path / "ran").exists()) == (2, False)
        assert "theirs.py was edited since it began; look at it, and name it again to run it: --dataset" in err[-1]
    code, _, err = train_here("--config", "a/config.json", "--dataset", "theirs.py:load", "--dry-run")
    assert (code, (tmp_path / "ran").exists()) == (0, True)
    assert err == ["theirs.py changed since a/config.json: its numbers may differ"]


def test_a_dry_run_leaves_no_trace(tmp_path, train_here):
    code, out, err = train_here("--dry-run", "-o", "storage=dense", "--run-dir", "a", "--tensorboard")
    assert (code, err) == (0, [])
    assert out[0].startswith("data: DataSplit(digits: 1,437 training and 360 test samples")
    assert "steps: 1,150 of 64 samples, 23 in an epoch" in out
    assert list(tmp_path.iterdir()) == []


CANNOT_BE_BUILT = [
    "--optimizer testgd -o storage=factored --jit",
    "--optimizer adam --jit --eager",
    "--optimizer adam --jit --microbatch 5",
    "--optimizer lbfgs --on-nonfinite rollback",
    "--optimizer lbfgs --model mine.py:frozen",
    "--optimizer adam --steps 3 --then testgd:storage=factored --jit",
    "--optimizer adam --steps 3 --then lbfgs --on-nonfinite rollback",
    "--optimizer adam --keep-best val_score",
    "--run-dir begun --resume --seed 7",
    "--run-dir lost --resume",
]


@pytest.mark.parametrize("arguments", CANNOT_BE_BUILT)
def test_a_dry_run_raises_what_the_run_would_raise(arguments, run, tmp_path, train_here):
    (tmp_path / "mine.py").write_text(
        "import trainloop as tl\n"
        "def frozen(input_shape, outputs):\n"
        "    model = tl.models.softmax_regression(input_shape, outputs)\n"
        "    model.trainable = False\n"
        "    return model\n"
    )
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_bytes((run[0] / "config.json").read_bytes())
    (tmp_path / "lost" / "checkpoints" / "step-00000001").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    words = [*([] if "--model" in arguments or "--resume" in arguments else ["--model", "softmax_regression"])]
    dry = train_here(*arguments.split(), *words, "--dry-run")
    assert (dry[0], len(dry[2]), sorted(tmp_path.rglob("*"))) == (2, 1, before)
    assert dry == train_here(*arguments.split(), *words)


def test_list_names_everything(train_here):
    _, printed, _ = train_here("--list")
    names = [line.split()[0] for line in printed if line.startswith("  ")]
    assert names == [*DATASETS, *MODELS, *ALGORITHMS, *WRAPPERS]
    assert max(map(len, printed)) <= 140


def test_what_one_method_takes_is_listed_too(train_here):
    code, printed, _ = train_here("--list", "momentum")
    assert code == 0
    assert printed[0].startswith("momentum: ")
    assert any(line.startswith("  -o momentum=0.9") for line in printed)
    code, _, complaints = train_here("--list", "momentun")
    assert (code, len(complaints)) == (2, 1)
    assert "did you mean 'momentum'" in complaints[0]


def test_what_is_not_said_fits_the_data(tmp_path, train_here):
    assert train_here("--dataset", "linnerud", "--optimizer", "adam", "--steps", "2", "--run-dir", "a")[0] == 0
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["model"], config["batch_size"], config["training_samples"]) == ("mlp", 16, 16)


@pytest.mark.thorough
def test_a_users_method_with_xla_and_full_batches(tmp_path, train_here):
    (tmp_path / "mine.py").write_text(
        "from trainloop import GlobalVectorOptimizer\n"
        "class Mine(GlobalVectorOptimizer):\n"
        "    def __init__(self, learning_rate=0.1, name='mine', **kwargs):\n"
        "        super().__init__(learning_rate, name=name, **kwargs)\n"
        "    def init_state(self, x):\n"
        "        return {}\n"
        "    def update(self, x, g, state):\n"
        "        return x - self.learning_rate * g, {}\n"
    )
    options = ["--model", "softmax_regression", "--optimizer", "mine.py:Mine", "-o", "learning_rate=0.02"]
    code, _, complaints = train_here(*options, "--batch-size", "full", "--epochs", "3", "--jit")
    assert code == 0, complaints
    (folder,) = (tmp_path / "runs").iterdir()
    losses = [r["loss"] for r in lines(folder / "metrics.jsonl") if r["kind"] == "step"]
    assert len(losses) == 3
    assert losses[2] < losses[0]


@pytest.mark.thorough
def test_data_model_loss_and_method_of_a_users_own(tmp_path, train_here):
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "import numpy as np\n"
        "import tensorflow as tf\n"
        "from trainloop import SimpleGD\n"
        "x = np.linspace(-1, 1, 40)[:, None]\n"
        "def load():\n"
        "    return (x, 3 * x + 1), (x[:5], 3 * x[:5] + 1)\n"
        "def build(input_shape, outputs):\n"
        "    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(outputs)])\n"
        "def loss(targets, predictions):\n"
        "    return tf.square(targets - predictions)\n"
        "class Mine(SimpleGD):\n"
        "    pass\n"
    )
    own = {"dataset": "mine.py:load", "model": "mine.py:build", "loss": "mine.py:loss", "optimizer": "mine.py:Mine"}
    words = [word for name, value in own.items() for word in (f"--{name}", value)]
    options = ["-o", "learning_rate=0.5", "--batch-size", "full", "--epochs", "60", "--run-dir", "a"]
    code, printed, complaints = train_here(*words, *options)
    assert (code, complaints) == (0, [])
    assert "40 training samples" in printed[0]
    loss, error = (float(part.split()[-1]) for part in result_in(printed).split(", ")[:2])
    assert (loss < 5e-5, error < 5e-3) == (True, True)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert {name: config[name] for name in own} == own
    code, _, complaints = train_here(*words[:5], "mse", *words[6:], *options, "--resume")
    assert code == 2
    assert "loss was 'mine.py:loss', here it is 'mse'" in complaints[-1]
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "# edited\n")
    code, _, complaints = train_here("--run-dir", "a", "--resume")
    assert code == 2
    assert "mine.py was edited since it began" in complaints[-1]


@pytest.mark.thorough
def test_a_run_is_continued_with_its_own_settings(tmp_path, train_here):
    settings = [
        "--model",
        "softmax_regression",
        "--optimizer",
        "adam",
        "-o",
        "learning_rate=0.01",
        "--batch-size",
        "50",
    ]
    assert train_here(*settings, "--steps", "5", "--run-dir", "a")[0] == 0
    before = json.loads((tmp_path / "a" / "config.json").read_text())
    code, printed, _ = train_here("--run-dir", "a", "--resume", "--steps", "8")
    assert code == 0
    assert printed[0].startswith("softmax_regression on digits with adam: ")
    assert "continues after step 5" in printed
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == {**before, "steps": 8, "resume": True}
    code, _, complaints = train_here("--run-dir", "a", "--resume", "--seed", "1")
    assert code == 2
    assert "a is a run with other settings: seed was 0, here it is 1" in complaints[-1]


@pytest.mark.thorough
def test_a_loss_that_is_not_finite_ends_with_code_1_and_readable_files(tmp_path, train_here):
    options = ["--model", "mlp", "--optimizer", "adam", "-o", "learning_rate=1e30", "--epochs", "1"]
    code, _, (line,) = train_here(*options, "--run-dir", "a")
    assert code == 1
    records = lines(tmp_path / "a" / "metrics.jsonl")
    *_, before, failed, end = records
    assert (failed["loss"], end["status"]) == (None, "NONFINITE_LOSS")
    assert f"step {failed['step']} failed" in line
    assert f"last finite loss {before['loss']:.6g}".lower() in line.lower()
    for name in ("config.json", "curves.png", "model.keras"):
        assert (tmp_path / "a" / name).stat().st_size > 0


def npz(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 20), ("test", 10)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 6, 6)).astype("uint8")
        arrays[f"y_{part}"] = (np.arange(count) % 3).astype("uint8")
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


BAD = {
    "--dataset mnst": "did you mean 'mnist'",
    "--dataset nowhere.npz": "does not exist",
    "--dataset empty.npz": "without y_test",
    "--dataset lengths.npz": "20 images and 19 labels",
    "--dataset labels.npz": "-1",
    "--dataset nan.npz": "NaN",
    "--dataset gzipped": "cannot be read",
    "--dataset magic": "0x00000803",
    "--dataset fine.npz --batch-size 21": "batch_size",
    "--model lenet": "did you mean 'lenet5'",
    "--model transformer": "input_shape of transformer must be (length of the sequence,)",
    "--dataset wine --model transformer": "transformer on wine: the model must put out",
    "--dataset parts.py:data": "parts.py has no 'data' (did you mean 'date'?)",
    "--dataset parts.py:date": "parts.py:2 in date: ZeroDivisionError",
    "--dataset parts.py:build": "parts.py:build: TypeError",
    "--dataset nowhere.py:load": "no such file",
    "--model parts.py:build": "one number for every class, [N, 10], received [N, 28, 28, 9]",
    "--model parts.py:buil": "did you mean 'build'",
    "--model parts.py:date": "parts.py:date: TypeError",
    "--model parts.py:nothing": "must return a keras.Model",
    "--model syntax.py:build": "importing syntax.py failed at",
    "--dataset os:abort": "os:abort is from a module of Python itself, which has no functions of this kind",
    "--loss mean_square": "did you mean 'mean_squared_error'",
    "--loss parts.py:wrong": "parts.py:8 in wrong: AttributeError",
    "--loss parts.py:vector": "must return a scalar, or a dict of scalars by name, received int32 of shape",
    "--loss nowhere:loss": "importing nowhere failed",
    "--optimizer testdg": "did you mean 'testgd'",
    "--optimizer nowhere.py:X": "no such file",
    "--optimizer keras.optimizers:SGD": "update",
    "--optimizer old.py:Old": "_resource_apply_dense",
    "--optimizer frozen.py:Frozen": "Frozen has no option",
    "-o radd=1": "did you mean 'rad'",
    "-o rad=wide": "rad must be",
    "-o rad=-1": "rad must be",
    "-o rad": "key=value",
    "--epochs 0": "epochs",
    "--epochs -3": "epochs",
    "--epochs many": "epochs",
    "--steps 0": "steps",
    "--steps-per-call 0": "steps-per-call",
    "--batch-size 0": "batch-size",
    "--batch-size half": "full",
    "--seed -1": "seed",
    "--jit": "storage='dense'",
    "--resume": "--resume needs --run-dir",
    "--resume --run-dir a --overwrite": "no --overwrite",
    "--run-dir taken": "in use by a run of another process",
    "--dry-run --run-dir stopped --resume": "lacks dataset, model",
    "--run-dir stopped": "it did not come to its end, so continue it with --resume",
    "--run-dir stopped --resume": "lacks dataset, model",
    "--run-dir /proc/nowhere": "/proc/nowhere",
    "--keep-best val_acuracy --run-dir b": "val_accuracy; received 'val_acuracy' (did you mean 'val_accuracy'?)",
    "--dry-run --keep-best val_score": "--keep-best must be one of epoch, step, seconds, loss, accuracy, val_loss,",
    "--on-nonfinite rollback --optimizer lbfgs --run-dir b": "no learning rate, radius or damping",
    "--config nowhere.json": "nowhere.json",
    "--config file": "file is not a config.json of a run",
    "--config stopped/config.json": "lacks dataset, model",
    "--dry-run --jit": "storage='dense'",
    "--dry-run --on-nonfinite rollback --optimizer lbfgs": "no learning rate, radius or damping",
    "--run-dir file": "file",
    "--run-dir file/below": "file",
    "--no-such-option": "no-such-option",
}


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    npz(folder / "fine.npz")
    npz(folder / "empty.npz", y_test=None)
    npz(folder / "lengths.npz", y_train=np.zeros(19, "uint8"))
    npz(folder / "labels.npz", y_train=np.arange(20) - 1)
    npz(folder / "nan.npz", x_test=np.full((10, 6, 6), np.nan))
    for name, content in (("gzipped", b"\x1f\x8b\x08broken"), ("magic", b"\0" * 40)):
        (folder / name).mkdir()
        suffix = ".gz" if name == "gzipped" else ""
        for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (folder / name / f"{file}-ubyte{suffix}").write_bytes(content)
    (folder / "file").write_text("")
    (folder / "taken").mkdir()
    (folder / "stopped").mkdir()
    (folder / "stopped" / "config.json").write_text('{"seed": 1}')
    head = "from trainloop import SimpleGD\n\nclass"
    (folder / "old.py").write_text(f"{head} Old(SimpleGD):\n    def _resource_apply_dense(self, g, v):\n        pass\n")
    (folder / "frozen.py").write_text(
        f"{head} Frozen(SimpleGD):\n    def __init__(self):\n        super().__init__()\n"
    )
    (folder / "parts.py").write_text(
        "def date():\n    return 1 / 0\n"
        "def build(input_shape, outputs):\n"
        "    import keras\n"
        "    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(outputs - 1)])\n"
        "nothing = lambda input_shape, outputs: None\n"
        "def wrong(targets, predictions):\n    return targets.nowhere\n"
        "def vector(model, batch):\n    return batch[1]\n"
    )
    (folder / "syntax.py").write_text("def build(:\n")
    lock = RunLock(folder / "taken" / "lock")
    yield folder
    lock.release()


@pytest.mark.parametrize(("arguments", "words"), BAD.items(), ids=BAD.keys())
def test_bad_input_is_one_line_and_code_2(arguments, words, bad_folder, train_here):
    if "Frozen" in words:
        arguments += " -o rad=3"
    code, _, (line,) = train_here(*arguments.split(), cwd=bad_folder)
    assert code == 2
    assert line.startswith("Error: ")
    assert words in line
    assert not (bad_folder / "runs").exists()
    assert not (bad_folder / "b").exists()
