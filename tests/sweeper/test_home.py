import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.home import Home, lock_home
from trainables.errors import InputError

LOCAL = "/dev/sda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"


def test_a_home_names_its_files(tmp_path, monkeypatch):
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


def test_a_second_driver_is_told_who_holds_the_home(tmp_path):
    with lock_home(tmp_path / "home", LOCAL):
        with pytest.raises(InputError) as raised, lock_home(tmp_path / "home", LOCAL):
            pytest.fail("two drivers hold one home")
        assert f"held by pid {os.getpid()} on {socket.gethostname()}" in str(raised.value)
        assert "--home" in str(raised.value)
    with lock_home(tmp_path / "home", LOCAL):
        pass


def test_a_killed_driver_holds_nothing(tmp_path):
    code = (
        "import sys, time, pathlib, sweeper.home as h\n"
        "with h.lock_home(pathlib.Path(sys.argv[1]), ''):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"pid {process.pid} "), lock_home(tmp_path, LOCAL):
            pytest.fail("two drivers hold one home")
        process.send_signal(signal.SIGKILL)
    with lock_home(tmp_path, LOCAL):
        pass


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "gpfs", "ceph", "9p", "beegfs"]
)
def test_a_home_on_a_network_file_system_is_refused(tmp_path, kind):
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
def test_only_the_innermost_newest_mount_counts(tmp_path, mounts):
    with lock_home(tmp_path / "home", mounts.format(tmp_path)):
        pass


def test_mount_points_and_links_are_followed(tmp_path):
    (tmp_path / "my disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "my disk")
    mounts = f"server:/x {tmp_path}/my\\040disk nfs rw 0 0\n"
    for place in ("my disk", "link"):
        with pytest.raises(InputError, match="my disk"), lock_home(tmp_path / place / "home", mounts):
            pytest.fail("locked a home on a network file system")
