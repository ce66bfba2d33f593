"""GPUs that Ray believes in: how packs share them is its bookkeeping, so no GPU is needed to test it."""

from collections import Counter
from contextlib import closing

import pytest

from sweeper import launch
from sweeper.launch import Machine, check_share
from sweeper.ledger import Ledger
from sweeper.packing import PackPlan
from sweeper.plan import find_question, plan
from sweeper.probing import Probe
from sweeper.records import Records
from trainables import blocks
from trainables.errors import InputError

NUM_PACKS = 9


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.3, ["0.25 (4 packs a GPU)", "0.333 (3 packs a GPU)"]),
        (0.15, ["0.143 (7 packs a GPU)", "0.167 (6 packs a GPU)"]),
        (0.7, ["0.5 (2 packs a GPU)", "1 (1 packs a GPU)"]),
        (1.5, ["whole GPUs"]),
        (-1.0, ["whole GPUs"]),
    ],
)
def test_a_share_that_leaves_a_part_of_a_gpu_idle_is_refused(share, said):
    with pytest.raises(InputError) as raised:
        check_share(share)
    for word in (f"{share:g}", *said):
        assert word in str(raised.value)


@pytest.mark.parametrize("share", [0, 1 / 3, 0.333, 0.25, 0.125, 1 / 7, 1, 2, 8])
def test_shares_that_fill_a_gpu_are_taken(share):
    check_share(share)


@pytest.mark.parametrize("k", range(1, 65))
def test_so_many_packs_fit_a_gpu_as_ray_counts(k):
    """Ray counts in ten-thousandths of a GPU."""
    share = launch._exact(1 / k)
    assert round(share * 10_000) * k <= 10_000
    assert round(share * 10_000) * (k + 1) > 10_000


@pytest.mark.parametrize(
    ("share", "num_gpus", "num_slots"), [(0.25, 2, 8), (1 / 3, 2, 6), (1, 8, 8), (2, 8, 4), (4, 2, 1)]
)
def test_slots_are_counted_in_gpus(share, num_gpus, num_slots):
    machine = Machine("somewhere:6379", share)
    assert launch._num_slots({"CPU": 64.0, "GPU": float(num_gpus)}, machine) == num_slots


def test_slots_without_gpus_are_counted_in_threads():
    assert launch._num_slots({"CPU": 7.0}, Machine(None, 0.0)) == 7
    assert launch._num_slots({"CPU": 7.0}, Machine(None, 0.0, threads=2)) == 3
    assert launch._num_slots({"CPU": 1.0}, Machine(None, 0.0, threads=2)) == 1


@pytest.fixture(scope="module")
def home(tmp_path_factory, start_cluster):
    """A home in which packs of one run each were trained at a quarter of a GPU."""
    folder = tmp_path_factory.mktemp("gpus")
    machine = Machine(start_cluster(8, 2), 0.25)
    fields = {"steps": "400", "evaluate_every": "400", "beta": "1"}
    with Probe() as probe:
        question = find_question("betavae_beta", "smoke", tuple(range(NUM_PACKS)), fields, "gpus")
        (planned,) = plan([question], probe)
    with Ledger(folder / "ledger.db", folder / "storage") as ledger:
        planned.register(ledger)
        packs = [PackPlan((run,)) for run in planned.waiting(None)]
        with launch.cluster(machine) as num_slots:
            assert num_slots == 8
            launch.train(ledger, packs, machine, num_slots, [].append)
        assert {row.status for row in ledger.records.members(question.id)} == {"done"}
    return folder


def test_eight_packs_share_two_gpus_and_the_ninth_waits(home):
    with closing(Records.open(home / "ledger.db")) as records:
        attempts = records.attempts()
    assert [attempt.outcome for attempt in attempts] == ["done"] * NUM_PACKS
    *first, ninth = attempts
    first_end = min(attempt.ended_at_s for attempt in first)
    assert max(attempt.started_at_s for attempt in first) < first_end
    assert ninth.started_at_s >= first_end


def test_four_packs_are_on_each_gpu_at_once(home):
    """While a pack trains it is on one GPU, which its worker was told of and wrote down."""
    spans = {}
    for path in blocks.committed(home / "storage"):
        manifest = blocks.read_manifest(path)
        gpus, begun_s = manifest.provenance["gpus"], manifest.written_at_s - manifest.train_s
        _, begun_s, _ = spans.get(manifest.attempt, (gpus, begun_s, 0.0))
        spans[manifest.attempt] = gpus, begun_s, manifest.written_at_s
    assert len(spans) == NUM_PACKS
    assert {gpus for gpus, _, _ in spans.values()} == {"0", "1"}
    at_once = [
        Counter(gpus for gpus, begun_s, end_s in spans.values() if begun_s <= moment_s < end_s)
        for _, moment_s, _ in spans.values()
    ]
    assert {"0": 4, "1": 4} in at_once
    assert all(max(counts.values()) <= 4 for counts in at_once)
