"""What all programs share, on a terminal: a word while TensorFlow loads, and Ctrl-C at that time."""

import os
import pty
import signal
import subprocess
import sys

import click
import pytest
from environment import ROOT

from trainloop.cli import common


@pytest.fixture
def on_a_terminal():
    """Runs train.py --list on a terminal: (process, function that reads what it shows until some text or its end)."""
    ours, theirs = pty.openpty()
    words = [sys.executable, str(ROOT / "scripts" / "train.py"), "--list"]
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)

    def read(until=None):
        shown = b""
        while until is None or until not in shown:
            try:
                shown += os.read(ours, 1024)
            except OSError:  # the terminal is closed
                break
        return shown.decode()

    yield process, read
    process.kill()
    process.wait()
    os.close(ours)


@pytest.mark.thorough
def test_a_terminal_has_a_word_while_tensorflow_loads_and_not_longer(on_a_terminal):
    process, read = on_a_terminal
    shown = read()
    assert process.wait(60) == 0
    before, erased, after = shown.partition("\r\033[K")
    assert (before, erased) == ("loading TensorFlow ...", "\r\033[K")
    assert after.startswith("data sets")


def test_ctrl_c_while_tensorflow_loads_ends_the_program(on_a_terminal):
    process, read = on_a_terminal
    read(until=b"...")
    process.send_signal(signal.SIGINT)
    assert read().splitlines()[-1] == "Interrupted."
    assert process.wait(60) == 130


@pytest.mark.parametrize("name", ["tensorflow", "h5py", "sklearn", "random"])
def test_a_file_that_would_be_imported_in_place_of_a_library_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "utils.py").write_text("")
    common.name_shadows()  # the folder is none that modules are looked for in
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    common.name_shadows()  # it is the last one
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(click.UsageError, match=rf"{name}\.py would be imported in place of the module {name}"):
        common.name_shadows()


@pytest.mark.thorough
def test_python_m_trainloop_does_not_look_into_the_current_folder_first(tmp_path):
    for name in ("tensorflow", "h5py", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    command = [sys.executable, "-m", "trainloop", "train", "--list", "adam"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout[:5]) == (0, "adam:"), done.stderr


@pytest.mark.parametrize(
    ("terminal", "lines"), [(True, ["files of the run in", "a/name-that-is-longer-than-a-line"]), (False, 1)]
)
def test_a_message_is_broken_between_words_where_somebody_reads_it(terminal, lines, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "20")
    common.echo_text("files of the run in a/name-that-is-longer-than-a-line")
    printed = capsys.readouterr().out.splitlines()
    assert printed == lines if terminal else len(printed) == lines


@pytest.mark.thorough
def test_output_that_cannot_be_written_ends_nothing():
    program = "from trainloop.cli import common; import click; "
    program += (
        "command = click.command()(lambda: [common.echo('x' * 100_000) for _ in range(3)]); common.run_main(command)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr


def test_help_needs_no_tensorflow():
    program = "import sys; sys.argv = ['scripts/train.py', '--help']\n"
    program += "try:\n    from trainloop.cli import main, train, compare, launch\nfinally:\n"
    program += "    sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
