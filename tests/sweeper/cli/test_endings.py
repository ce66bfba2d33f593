"""How a command ends when its reader, its terminal or its scheduler wants it to."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from sweeper.cli.app import main
from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.machines.probe import Probe
from sweeper.tracking.sync import lock_projection

ROOT = Path(__file__).parents[3]
TRAIN = ["run", "factorvae_gamma", "--scale", "smoke", "--no-ray", "--home"]


def start(*words: object, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sweeper", *map(str, words)]
    return subprocess.Popen(command, env=environment, **options)  # type: ignore[call-overload, no-any-return]


def pids(*of: object) -> list[int]:
    """Processes by parent (`-P`) or session (`-s`)."""
    found = subprocess.run(["pgrep", *map(str, of)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.system
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_sweep_ends_whole_when_nobody_reads_it_any_more(stream: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    other = "stderr" if stream == "stdout" else "stdout"
    home = Home.at(tmp_path / "home")
    home.path.mkdir()
    little = ["--as", "little", "--set", "gamma=1", "--set", "steps=20", "--seeds", "0"]
    how = {stream: write, other: subprocess.PIPE}
    with lock_projection(home), start(*TRAIN, home.path, *little, **how) as process:
        os.close(write)
        out, err = process.communicate()
    assert process.returncode == 0, err
    with closing(Records.open(home.ledger)) as records:
        assert [row.status for row in records.members(SweepId("factorvae_gamma", "smoke", "little"))] == [
            "done"
        ]
    assert list(home.exports.glob("*.csv"))
    assert b"Traceback" not in (out or b"") + (err or b"")


def test_a_table_is_written_in_an_encoding_without_its_letters(trained_home: Path) -> None:
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", str(trained_home)]
    command = [sys.executable, "-m", "sweeper", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b"factor_vae gamma=1" in shown.stdout
    assert shown.stdout.isascii()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_of_a_scheduler_or_a_terminal_ends_a_command_as_ctrl_c_does(
    number: signal.Signals, tmp_path: Path
) -> None:
    words = ["plan", "infowgan_gp", "--scale", "paper", "--home", str(tmp_path)]
    with start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not pids("-P", process.pid):  # a process that has torch, which will measure packs for minutes
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err.decode().splitlines()[-1].startswith("Stopped.")
    assert b"Traceback" not in err


def test_a_killed_process_that_measures_is_a_fault_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Probe._ask

    def killed(self: Probe, question: dict[str, object]) -> dict[str, object]:
        self._process.kill()
        return ask(self, question)

    monkeypatch.setattr(Probe, "_ask", killed)
    assert main(["plan", "factorvae_gamma", "--scale", "smoke", "--home", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == (
        "Error: the process that measures packs was killed, perhaps by the kernel because memory ran out"
    )
    assert second == "Fix the cause, then run the same command to resume."


@pytest.mark.system
def test_a_batch_that_memory_cannot_hold_is_refused_with_one_that_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--set", "batch_size=100000000", "--as", "large"]
    assert main(["plan", "factorvae_gamma", "--scale", "smoke", *changes, "--home", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("batch_size=100000000: a pack of 2 such runs would need ")
    assert second.startswith("Use smaller ones, for example batch_size=")


def test_a_taken_port_is_named_with_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(["ui", "--home", str(tmp_path), "--port", str(port)]) == 2
    assert capsys.readouterr().err.startswith(f"--port {port}: in use by another program.\nChoose another")


@pytest.mark.system
def test_pages_are_announced_when_they_answer_and_leave_no_process(empty_store: Path, tmp_path: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with start(
        "ui", "--home", tmp_path, "--port", port, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ui:
        assert ui.stdout is not None
        assert ui.stdout.readline().decode().startswith(f"MLflow on http://127.0.0.1:{port}")
        with urlopen(f"http://127.0.0.1:{port}/version") as page:
            assert page.status == 200
        (command,) = pids("-P", ui.pid)
        assert len(pids("-s", command)) == 2, "MLflow's command, and the one process that it needs to answer"
        ui.send_signal(signal.SIGTERM)
        ui.communicate()
    assert ui.returncode == 130
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_path_that_begins_with_a_tilde_is_in_the_users_folder(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["status", "factorvae_gamma"]
    if how == "variable":
        monkeypatch.setenv("SWEEPER_HOME", "~/x")
    assert main([*words, "--home=~/x"] if how == "option" else words) == 2
    assert f"--home {tmp_path}/x" in capsys.readouterr().err
