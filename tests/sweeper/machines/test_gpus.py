"""GPUs that Ray believes in: how packs share them is its bookkeeping, so no GPU is needed to test it."""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sweeper.home import Home
from sweeper.ledger.writer import Ledger
from sweeper.machines import clusters
from sweeper.machines import resources as machine
from sweeper.machines.probe import Probe
from sweeper.machines.resources import Machine, Resources, check_share
from sweeper.scheduling import launch
from sweeper.scheduling.packing import PackPlan
from sweeper.scheduling.plan import find_question, plan
from tests.sweeper.conftest import Typed
from trainables import blocks
from trainables.config import RunSpec, spec_of
from trainables.errors import InputError
from trainables.layout import Layout

RUN = RunSpec("beta_vae", "sprites", {}, 0)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.3, ["0.25 (4 packs per GPU)", "0.333 (3 packs per GPU)"]),
        (0.15, ["0.143 (7 packs per GPU)", "0.167 (6 packs per GPU)"]),
        (0.7, ["0.5 (2 packs per GPU)", "1 (1 packs per GPU)"]),
        (1.5, ["one GPU or 1/k of it"]),
        (2.0, ["one GPU or 1/k of it"]),
        (-1.0, ["Valid: 0 (CPU)"]),
        (float("nan"), ["Valid: 0 (CPU)"]),
    ],
)
def test_a_share_that_leaves_a_part_of_a_gpu_idle_is_refused(share: float, said: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        check_share(share)
    for word in (f"{share:g}", *said):
        assert word in str(raised.value)


@pytest.mark.parametrize("share", [0, 1 / 3, 0.333, 0.25, 0.125, 1 / 7, 1])
def test_shares_that_fill_a_gpu_are_taken(share: float) -> None:
    check_share(share)


@pytest.mark.parametrize("k", range(1, 65))
def test_so_many_packs_fit_a_gpu_as_ray_counts(k: int) -> None:
    """Ray counts in ten-thousandths of a GPU."""
    share = machine.exact_share(1 / k)
    assert round(share * 10_000) * k <= 10_000
    assert round(share * 10_000) * (k + 1) > 10_000


@pytest.mark.parametrize(("share", "num_gpus", "num_slots"), [(0.25, 2, 8), (1 / 3, 2, 6), (1, 8, 8)])
def test_slots_are_counted_in_gpus(share: float, num_gpus: int, num_slots: int) -> None:
    there = Machine("somewhere:6379", share)
    assert machine.num_slots(Resources(64.0, num_gpus), there) == num_slots


def test_slots_without_gpus_are_counted_in_threads() -> None:
    assert machine.num_slots(Resources(7.0, 0), Machine(None, 0.0)) == 7
    assert machine.num_slots(Resources(7.0, 0), Machine(None, 0.0, threads=2)) == 3
    assert machine.num_slots(Resources(1.0, 0), Machine(None, 0.0, threads=2)) == 1


def test_a_cluster_without_gpus_is_refused_where_they_are_asked_for() -> None:
    with pytest.raises(InputError, match=r"somewhere:6379 has no GPU\.\n.*--cluster-gpus"):
        machine.num_slots(Resources(64.0, 0), Machine("somewhere:6379", 0.25))


@pytest.mark.system
def test_eight_packs_share_two_gpus_and_the_ninth_waits(
    tmp_path: Path, start_cluster: Callable[..., str]
) -> None:
    """Packs that would train for hours: once eight have written a block, all of them are at work."""
    two_gpus = Machine(start_cluster(8, 2), 0.25)
    fields = {"steps": "1000000", "evaluate_every": "1000000", "beta": "1"}
    with Probe() as probe:
        (planned,) = plan(
            [find_question("betavae_beta", "smoke", tuple(range(9)), fields, "gpus")], probe, None
        )
    packs = [PackPlan((run,)) for run in planned.waiting(None)]

    def gpus_at_work() -> dict[int, str]:
        found = [blocks.read_manifest(path) for path in Layout(tmp_path / "storage").manifests()]
        return {manifest.attempt: manifest.provenance["gpus"] for manifest in found}

    def stop_once_eight_are_at_work(_: object) -> None:
        if len(gpus_at_work()) == 8:
            signal.raise_signal(signal.SIGTERM)

    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        planned.register(ledger)
        with clusters.cluster(two_gpus) as resources:
            assert (resources.num_cpus, resources.num_gpus) == (8, 2)
            num_slots = machine.num_slots(resources, two_gpus)
            assert num_slots == 8
            # The workers have no CUDA device, so they train, and are measured, on their CPU.
            found = clusters.ClusterMeasure()(spec_of(planned.waiting(None)[0].spec), 2, 0.25, 1)
            assert found
            assert 0 < found.step_time_s < 1
            with pytest.raises(KeyboardInterrupt):
                launch.train(ledger, packs, two_gpus, num_slots, stop_once_eight_are_at_work)
        assert [attempt.outcome for attempt in ledger.records.attempts()] == ["stopped"] * 8
    # Each worker was told its GPU, and wrote it down.
    assert Counter(gpus_at_work().values()) == {"0": 4, "1": 4}


FAKE_SMI = """#!/bin/sh
case "$*" in *--query-gpu=name,memory.total*) printf 'Test GPU, 8192\\nTest GPU, 8192\\n';; *) exit 1;; esac
"""


@pytest.fixture
def two_test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's tool that lists two GPUs, in front of any other."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(FAKE_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        *[(None, 2), ("0", 1), ("0,1", 2), ("", 0), ("-1", 0), ("GPU-1a,GPU-2b", 2)],
        *[("5", 0), ("0,-1,1", 1), ("0,0", 1), (" 1 , 0 ", 2), ("none", 0)],
    ],
)
def test_gpus_are_those_that_the_driver_lists_and_the_process_may_use(
    two_test_gpus: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.local_gpus() == (["Test GPU, 8 GiB"] * count, "")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo 'Driver/library version mismatch'; exit 18",
            "nvidia-smi fails: Driver/library version mismatch",
        ),
        ("exit 3", "nvidia-smi fails: exit code 3"),
        ("sleep 60", "nvidia-smi does not answer within 1 s"),
        ("printf '\\377\\376, 12\\n'", ""),
        ("true", ""),
    ],
)
def test_a_driver_that_fails_hangs_or_talks_nonsense_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str, refused: Callable[..., None]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "DRIVER_S", 1.0)
    gpus, found = machine.local_gpus()
    assert found == problem
    assert len(gpus) == (1 if "377" in script else 0)
    if problem:
        words = [
            "plan",
            "factorvae_gamma",
            "--scale",
            "smoke",
            "--home",
            tmp_path / "home",
            "--device",
            "gpu",
        ]
        refused(words, [f"--device gpu: {problem}", "--address"])


def test_on_one_machine_there_are_no_more_packs_at_once_than_cores() -> None:
    here = Machine(None, 0.25)
    assert machine.num_slots(Resources(2.0, 2), here) == 2
    assert machine.num_slots(Resources(64.0, 2), here) == 8
    assert machine.num_slots(Resources(0.0, 2), Machine("somewhere:6379", 0.25)) == 8, (
        "cores come with the nodes"
    )


@pytest.mark.system
def test_where_no_node_is_free_to_measure_nobody_asks_again(
    monkeypatch: pytest.MonkeyPatch, start_cluster: Callable[..., str]
) -> None:
    monkeypatch.setattr(clusters, "MEASURE_S", 2.0)
    with clusters.cluster(Machine(start_cluster(1), 0.5)):
        measure = clusters.ClusterMeasure()
        begun = time.monotonic()
        assert measure(RUN, 2, 0.5, 1) is None
        taken_s = time.monotonic() - begun
        assert [measure(RUN, 2, 0.5, 1) for _ in range(50)] == [None] * 50
        assert time.monotonic() - begun < 2 * taken_s


@pytest.mark.system
def test_a_plain_run_uses_the_gpus_that_are_there_and_says_how_in_one_line(
    two_test_gpus: None,
    make_home: Callable[[str], tuple[Home, ExitStack]],
    start_driver: Callable[..., subprocess.Popen[str]],
    typed: Callable[..., Typed],
) -> None:
    """torch finds no GPU here, so the packs that get one train on their CPU: the sweep counts as begun on it."""
    home, _ = make_home("gpus")
    words = ["run", "factorvae_gamma", "--scale", "smoke", "--home", home.path]
    driver = start_driver(*words)
    _, err = driver.communicate()
    assert driver.returncode == 0, err
    (line,) = [line for line in err.splitlines() if "Test GPU" in line]
    assert re.fullmatch(
        r"2 x Test GPU, 8 GiB: (one pack|\d packs) of up to 8 runs at once on each"
        r" \([\d,]+ run-steps/s on each; also measured: .* at once [\d,]+\)\.",
        line,
    ), line
    found = [blocks.read_manifest(path) for path in Layout(home.storage).manifests()]
    assert {manifest.provenance["gpus"] for manifest in found} <= {"0", "1"}
    again = typed("plan", *words[1:], "--seeds", "0-2")
    assert "began on a CPU and resumes there" in again.out
    assert "Test GPU" not in again.out
