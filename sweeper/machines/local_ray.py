"""Ray on this machine alone, started by a process of its own: `python -m sweeper.machines.local_ray FOLDER CPUS GPUS`.

Ray's processes are in a group of their own, where no signal to the driver's group reaches them, and keep their files in a folder of their
own. If one of them dies, all are killed. When the standard input of the process ends, as it does even if the driver is killed, it kills
them and deletes the folder, once no process is left that could write into it.
"""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from trainables.stopping import SIGNALS

START_S = 120.0
"""Longest time for Ray to start."""

GONE_S = 20.0
"""Longest time for which Ray's processes wait for its head before they end."""

LOOK_EVERY_S = 0.5
"""Seconds between checks whether Ray's processes are alive."""

END_S = 2.0
"""Longest time for killed processes to be gone; those that nobody collects, as in a container without an init, stay for ever."""

MAX_FOLDER_BYTES = 40
"""Longest path of the folder: Ray appends up to 66 bytes, and the path of a socket may have 107."""


@contextmanager
def started(num_cpus: float, num_gpus: float, meanwhile: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Start Ray; yield its address, and end it with the context.

    Args:
        num_cpus: Cores that it may use.
        num_gpus: GPUs that it may use.
        meanwhile: What to do while it starts.

    Raises:
        OSError: Ray does not start.
    """
    folder = _new_folder()
    command = [
        sys.executable,
        "-m",
        "sweeper.machines.local_ray",
        str(folder),
        f"{num_cpus:g}",
        f"{num_gpus:g}",
    ]
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": f"{GONE_S:.0f}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0,
        )
        try:
            import ray  # noqa: F401 (takes a second, in which the process starts Ray)

            meanwhile()
            yield _address(process, log)
        finally:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    """Return a new folder, for this user alone, whose path is short enough."""
    chosen = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    for place in (chosen, "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 (the folder is private)
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="sweeper-", dir=place)
            if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES:
                return Path(folder)
            Path(folder).rmdir()
    raise OSError(
        f"no folder for Ray: {chosen} is too long or not writable, and neither /tmp nor /var/tmp is"
    )


def _address(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    assert process.stdout
    if not select.select([process.stdout], [], [], START_S)[0]:
        raise OSError(
            f"Ray does not start on this machine within {START_S:.0f} s; --no-ray trains without it"
        )
    address = process.stdout.readline().decode().strip()
    if not address:
        log.seek(0)
        *_, last = "no reason was given", *log.read().strip().splitlines()
        why = re.sub(r"^\[.*?\] \S+: ", "", last).partition(". ")[0]  # without the place in Ray's source
        raise OSError(f"Ray does not start on this machine ({why}); --no-ray trains without it")
    return address


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, which kills Ray at once: Ray has nothing to save, and takes seconds to end by itself."""
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        process.wait(5 * END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def main(arguments: Sequence[str]) -> None:
    """Run Ray until standard input ends; then kill what is left of it and delete the folder."""
    folder, num_cpus, num_gpus = arguments
    group = os.fork()
    if group == 0:
        _run_ray(folder, float(num_cpus), float(num_gpus))
    with contextlib.suppress(ProcessLookupError):
        os.setpgid(group, group)  # here, too: whichever comes first
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the driver, which gets them too, ends this process
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that the driver's end of it is Ray's end
    sys.stdin.read()  # the driver may write into the folder until then, also after Ray's end
    _kill(group)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(group: int) -> None:
    end = time.monotonic() + END_S
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; on macOS, only zombies are left
        while time.monotonic() < end:
            os.killpg(group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(group, os.WNOHANG)
            time.sleep(0.01)


def _run_ray(folder: str, num_cpus: float, num_gpus: float) -> NoReturn:
    """Start Ray in the group of this process, print its address, and kill the group when one of its processes dies."""
    os.setpgid(0, 0)
    try:
        import ray
        from ray._private import worker

        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        print(ray.get_runtime_context().gcs_address, flush=True)
        while not select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
            if worker._global_node.dead_processes():
                break
    except BaseException as error:
        print(error, file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("the group outlives its end")


if __name__ == "__main__":
    main(sys.argv[1:])
