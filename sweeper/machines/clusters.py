"""Where Ray runs: started on this machine, or a cluster that is joined; whether it is still there; measuring on its nodes."""

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from sweeper import display
from sweeper.machines import joining, local_ray
from sweeper.machines.probe import Measured
from sweeper.machines.resources import (
    UNKNOWN_GPU,
    Machine,
    Resources,
    exact_share,
    local_resources,
    num_slots,
)
from trainables import measurements, plugins
from trainables.config import RunSpec, but_for_seed
from trainables.errors import InputError, UnusableGpuError, reason
from trainables.stopping import held_back

# Ray reads these when it is imported or started, so they are set before that.
_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_STATE_REFRESH_PERIOD": "1000000000",  # it would block on a Ray that is gone
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

EXPECTED_GPUS = 4
"""GPUs assumed for a cluster that shows none yet; packs are formed for this many, and wait until they start."""

SIGNAL_S = 0.5
"""Longest time between signals to Ray's processes and to this one, if all are to end."""

MEASURE_S = 60.0
"""Longest time for a cluster to measure a pack; nodes that are still starting take longer."""


LOOK_EVERY_S = 2.0
"""Seconds between looks at the nodes of a cluster."""

FIRST_NODE_S = 900.0
"""Longest time for the first node of a cluster that has none yet; the request itself makes the cluster start one."""


@contextmanager
def cluster(machine: Machine, meanwhile: Callable[[], None] = lambda: None) -> Iterator[Resources]:
    """Start Ray on this machine, or join a running cluster; yield its resources.

    Args:
        machine: Where.
        meanwhile: What to do while Ray starts here.

    Raises:
        InputError: The cluster cannot be reached.
        OSError: Ray does not start on this machine.
    """
    _set_environment(_ENVIRONMENT)
    with ExitStack() as stack:
        if machine.address is None:
            _set_environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
            # Passed explicitly, since Ray would count GPUs that the process may not use.
            here = local_resources()
            with _signals_first():
                starting = local_ray.started(here.num_cpus, here.num_gpus, meanwhile)
                stack.enter_context(_joined(stack.enter_context(starting)))
            yield here
            return
        try:
            stack.enter_context(_joined(machine.address))
        except OSError as error:
            raise InputError(
                f"--address {machine.address}: Ray refused the connection ({reason(error)}).\n"
                "Start a cluster with `ray start --head`, set its token, or leave out --address."
            ) from None
        yield _resources(machine)


@contextmanager
def _signals_first() -> Iterator[None]:
    """In this context an error waits a moment for a signal: who ends all processes, as a service manager does, may reach Ray's first."""
    try:
        yield
    except OSError:
        time.sleep(SIGNAL_S)
        raise


def _set_environment(wanted: Mapping[str, str]) -> None:
    """Set environment variables that the user has not set."""
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Join a running Ray for as long as the context is open.

    Raises:
        OSError: It refuses.
    """
    import ray

    try:
        with _kept_sigterm():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        (first, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(first) from None
    try:
        yield
    finally:
        with (
            held_back()
        ):  # a Ray that is half shut down would wait for its head for a minute, and then abort this process
            ray.shutdown()


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray would end this process at once, with exit code 15.

    Raises:
        KeyboardInterrupt: The signal came meanwhile.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def folder() -> str:
    """Return the folder of this machine for the files of Ray's session; of a Ray started here, it goes with it in any case."""
    from ray._private import worker

    return str(worker._global_node.get_session_dir_path())


def is_there() -> bool:
    """Return whether the head of the joined cluster answers; asking Ray itself would block if it does not."""
    import ray

    return joining.is_there(ray.get_runtime_context().gcs_address)


class ClusterMeasure:
    """Measures packs on nodes of the joined cluster; once no node was free, it does not ask again.

    What was measured on a kind of GPU is kept for this user: then a cluster that has no GPU yet is planned without one.

    Args:
        gpu: Kind of the cluster's GPUs, see `Resources`.
        is_growing: Whether the cluster starts nodes with GPUs when they are asked for.
        say: Tells the user that it waits.
    """

    def __init__(
        self,
        gpu: str = UNKNOWN_GPU,
        is_growing: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._gpu, self._is_growing, self._say = gpu, is_growing, say
        self._is_busy = False

    def __call__(self, run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured | None:
        """Return the cost of a pack on a node; None if no node is free soon, or the pack cannot train there.

        Raises:
            InputError: The pack does not fit into the node's memory.
            OSError: Torch cannot use the node's GPU.
        """
        kept = self._kept(run, num_runs, gpus, threads) if gpus and self._gpu != UNKNOWN_GPU else None
        if kept and (known := measurements.read(kept)):
            return Measured(**known)
        found = None if self._is_busy else self._measured(run, num_runs, gpus, threads)
        if kept and found:
            measurements.keep(kept, asdict(found))
        return found

    def _kept(self, run: RunSpec, num_runs: int, gpus: float, threads: int) -> Path:
        on = f"{self._gpu}, torch {version('torch')}"
        return measurements.place(
            {"run": but_for_seed(run), "num_runs": num_runs, "gpus": gpus, "threads": threads, "on": on}
        )

    def _measured(self, run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured | None:
        import ray

        files = plugins.carried()

        def task() -> dict[str, float]:
            from trainables import measuring, plugins

            plugins.learn(files)
            return measuring.measure(run, num_runs, gpus, threads)

        options = {"num_cpus": threads, "num_gpus": exact_share(gpus), "max_retries": 0, "max_calls": 1}
        asked = ray.remote(**options)(task).remote()
        is_first = gpus > 0 and self._is_growing and not ray.cluster_resources().get("GPU")
        if is_first:
            self._say(
                f"Waiting for the first node with a GPU, to measure a pack on it (at most {display.duration(FIRST_NODE_S)}) ..."
            )
        try:
            return Measured(**ray.get(asked, timeout=FIRST_NODE_S if is_first else MEASURE_S))
        except ray.exceptions.RayError as error:  # a pack that cannot train reports why when it is trained
            self._is_busy = isinstance(error, ray.exceptions.GetTimeoutError)
            ray.cancel(asked, force=True)
            cause = getattr(error, "cause", None)
            if isinstance(cause, InputError):
                raise cause from None
            if isinstance(cause, UnusableGpuError):
                raise OSError(str(cause)) from None
            return None


class Slots:
    """Says how many packs train at once: on this machine always as many, on a cluster what it has at the moment.

    Nodes that join take packs within seconds; for those that left, no attempt is begun that would wait for them.

    Args:
        machine: Where packs train.
        at_first: Packs at once when it was planned.
    """

    def __init__(self, machine: Machine, at_first: int) -> None:
        self._machine, self._found = machine, at_first
        self._looked_s = time.monotonic()

    def __call__(self) -> int:
        """Return the number, not older than a few seconds."""
        if self._machine.address is not None and time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            self._found = num_slots(_resources(self._machine), self._machine)
        return self._found


def described(machine: Machine, resources: Resources) -> list[str]:
    """Return lines that name the joined cluster; the second warns of one without a token. None for this machine alone."""
    if machine.address is None:
        return []
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    gpus = f"{display.count(round(resources.num_gpus), 'GPU')}, " if resources.num_gpus else ""
    cores = display.count(round(resources.num_cpus), "core")
    found = [
        f"Ray cluster at {machine.address}: {display.count(resources.num_nodes, 'node')}, {gpus}{cores}."
    ]
    if not is_token_auth_enabled():
        found.append(
            "Warning: this cluster asks for no token, so whoever reaches it can run code as you; set RAY_AUTH_MODE=token"
            " where Ray starts and here (see docs/cluster.md)."
        )
    return found


def _resources(machine: Machine) -> Resources:
    """Return the resources that the joined cluster has or will grow to."""
    import ray

    found = ray.cluster_resources()
    kinds = [name.removeprefix("accelerator_type:") for name in found if name.startswith("accelerator_type:")]
    num_gpus = max(found.get("GPU", 0), machine.cluster_gpus)
    if not num_gpus and machine.gpus_per_pack:
        num_gpus = EXPECTED_GPUS  # an autoscaled cluster may have none before packs request them
    num_nodes = sum(node["Alive"] for node in ray.nodes())
    return Resources(
        found.get("CPU", 0),
        num_gpus,
        " or ".join(kinds) or machine.cluster_gpu or UNKNOWN_GPU,
        num_nodes=num_nodes,
    )
