import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.home import Home, is_held, lock_home
from trainables.errors import InputError

LOCAL = "/dev/sda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"


def test_a_home_names_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home.at(Path("home"))
    assert (
        home.ledger.parent
        == home.storage.parent
        == home.mlflow.parent
        == home.exports.parent
        == tmp_path / "home"
    )
    assert Home.at(Path("home"), Path("shared")).storage == tmp_path / "shared"


def test_a_home_remembers_a_storage_elsewhere(tmp_path: Path) -> None:
    path, shared = tmp_path / "home", tmp_path / "a shared folder"
    path.mkdir()
    assert Home.at(path).is_settled
    home = Home.at(path, shared)
    assert not home.is_settled
    home.remember_storage()
    assert Home.at(path) == Home.at(path, shared) == home
    assert home.is_settled
    with pytest.raises(InputError) as raised:
        Home.at(path, tmp_path / "other")
    for word in (path, shared, tmp_path / "other", "--storage", "storage.path"):
        assert str(word) in str(raised.value)


def test_a_storage_inside_needs_no_note_and_moves_with_its_home(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir()
    Home.at(path, path / "x" / ".." / "storage").remember_storage()
    assert not list(path.iterdir())
    path.rename(tmp_path / "moved")
    assert Home.at(tmp_path / "moved").storage == tmp_path / "moved" / "storage"


def test_a_storage_inside_that_was_used_is_not_left_for_another(tmp_path: Path) -> None:
    attempts = tmp_path / "home" / "storage" / "attempts"
    attempts.mkdir(parents=True)
    assert Home.at(tmp_path / "home", tmp_path / "shared").storage == tmp_path / "shared"
    (attempts / "00000001.json").touch()
    with pytest.raises(InputError, match="keeps its blocks in"):
        Home.at(tmp_path / "home", tmp_path / "shared")


def test_the_same_storage_may_be_named_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    Home.at(Path("home"), Path("shared")).remember_storage()
    assert Home.at(Path("home"), Path("link")).is_settled


def test_damage_to_a_ledger_is_found(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    with closing(sqlite3.connect(home.ledger)) as db:
        db.executescript("CREATE TABLE a (b); CREATE INDEX c ON a (b); INSERT INTO a VALUES (1)")
    assert home.damage() == ""
    whole = home.ledger.read_bytes()
    home.ledger.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert home.damage()
    home.ledger.write_bytes(b"no database " * 999)
    assert "not a database" in home.damage()


def test_a_second_driver_is_told_who_holds_the_home(tmp_path: Path) -> None:
    with lock_home(tmp_path / "home", LOCAL):
        with pytest.raises(InputError) as raised, lock_home(tmp_path / "home", LOCAL):
            pytest.fail("two drivers hold one home")
        assert f"in use by pid {os.getpid()} on {socket.gethostname()}" in str(raised.value)
        assert "--home" in str(raised.value)
    with lock_home(tmp_path / "home", LOCAL):
        pass


def test_a_killed_driver_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib, sweeper.home as h\n"
        "with h.lock_home(pathlib.Path(sys.argv[1]), ''):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"pid {process.pid} "), lock_home(tmp_path, LOCAL):
            pytest.fail("two drivers hold one home")
        process.send_signal(signal.SIGKILL)
    with lock_home(tmp_path, LOCAL):
        pass


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "gpfs", "ceph", "9p", "beegfs"]
)
def test_a_home_on_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    mounts = f"{LOCAL}server:/x {tmp_path} {kind} rw 0 0\n"
    with pytest.raises(InputError) as raised, lock_home(tmp_path / "home", mounts):
        pytest.fail("locked a home on a network file system")
    for word in (str(tmp_path), f"({kind})", "--home", "--storage"):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    "mounts",
    [
        "server:/x / nfs rw 0 0\n/dev/sda1 {0} ext4 rw 0 0\n",
        "server:/x {0} nfs rw 0 0\n/dev/sda1 {0} ext4 rw 0 0\n",
        "server:/x {0}/hom nfs rw 0 0\n",
        "server:/x {0}/home/inner nfs rw 0 0\n",
    ],
    ids=["inner mount", "later mount", "same beginning", "below"],
)
def test_only_the_innermost_newest_mount_counts(tmp_path: Path, mounts: str) -> None:
    with lock_home(tmp_path / "home", mounts.format(tmp_path)):
        pass


def test_mount_points_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "my disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "my disk")
    mounts = f"server:/x {tmp_path}/my\\040disk nfs rw 0 0\n"
    for place in ("my disk", "link"):
        with pytest.raises(InputError, match="my disk"), lock_home(tmp_path / place / "home", mounts):
            pytest.fail("locked a home on a network file system")


def test_a_home_is_held_while_a_driver_is_there(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none")
    with lock_home(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with lock_home(tmp_path):
        assert is_held(tmp_path), "looking did not take it"
