import pytest

from sweeper.machines.probe import Measured
from sweeper.scheduling.gpu_packs import Choice, choose
from sweeper.scheduling.packing import Waiting
from tests.specs import run_spec
from trainables.config import RunSpec, Schedule
from trainables.errors import InputError

SPEC = run_spec()
RUN = Waiting("key", "static", SPEC, 0, Schedule(100, 10, 10, ()), 1.0)


class Gpu:
    """A GPU that is kept busy by so many runs at once: a step of fewer takes as long, of more in proportion.

    A pack alone uses a part of it, since it waits for its own kernels to be launched.
    """

    def __init__(
        self, num_busy: int, room_gib: float = 100.0, run_gib: float = 0.1, part: float = 1.0
    ) -> None:
        self.num_busy, self.room_gib, self.run_gib, self.part = num_busy, room_gib, run_gib, part
        self.asked: list[tuple[int, int]] = []

    def alone(self, spec: RunSpec, size: int, gpus: float, threads: int) -> Measured | None:
        self.asked.append((1, size))
        if size * self.run_gib > self.room_gib:
            return None
        return Measured(max(size, self.num_busy) / 1000 / self.part, size * self.run_gib, self.room_gib)

    def together(self, spec: RunSpec, size: int, num_packs: int, threads: int) -> float:
        self.asked.append((num_packs, size))
        return max(size * num_packs, self.num_busy) / 1000 / min(1.0, self.part * num_packs)


def chosen(gpu: Gpu, num_runs: int, kept: int | None = None, is_local: bool = True) -> Choice:
    return choose(RUN, num_runs, 1, gpu.alone, gpu.together if is_local else None, kept)


@pytest.mark.parametrize(
    ("num_runs", "num_busy", "size"),
    [(60, 64, 64), (60, 1000, 64), (60, 10, 16), (5, 64, 8), (200, 128, 128)],
)
def test_a_pack_is_as_large_as_saves_time(num_runs: int, num_busy: int, size: int) -> None:
    choice = chosen(Gpu(num_busy), num_runs)
    assert (choice.num_packs, choice.size) == (1, size)


def test_nothing_larger_than_what_is_to_be_trained_is_measured() -> None:
    gpu = Gpu(64)
    chosen(gpu, 20, is_local=False)
    assert gpu.asked == [(1, 8), (1, 16), (1, 32)]


def test_a_pack_that_leaves_the_gpu_waiting_shares_it() -> None:
    choice = chosen(Gpu(10, part=0.5), 60)
    assert (choice.num_packs, choice.size) == (2, 32)
    choice = chosen(Gpu(10, part=0.25), 60)
    assert (choice.num_packs, choice.size) == (4, 16)


def test_sharing_for_a_few_percent_is_not_worth_it() -> None:
    assert chosen(Gpu(10, part=0.95), 64).num_packs == 1


def test_memory_bounds_a_pack_and_how_many_share_a_gpu() -> None:
    assert chosen(Gpu(1000, room_gib=4.0), 60).size == 32
    assert chosen(Gpu(10, room_gib=2.5, part=0.25), 60).num_packs == 1
    small = chosen(Gpu(1000, room_gib=0.5), 60)
    assert (small.num_packs, small.size) == (1, 4), "smaller than the ladder, where memory forces it"


def test_a_run_that_no_gpu_holds_is_refused() -> None:
    with pytest.raises(InputError, match="A pack of 2 such runs does not fit into the memory of the GPU"):
        chosen(Gpu(10, room_gib=0.1), 60)


def test_a_cluster_without_a_free_gpu_is_taken_to_be_usual() -> None:
    choice = choose(RUN, 60, 1, lambda *_: None, None, None)
    assert (choice.num_packs, choice.size) == (1, 64)
    assert "no GPU is free" in choice.reason


def test_what_packs_computed_before_is_kept_and_how_many_share_a_gpu_is_chosen_anew() -> None:
    gpu = Gpu(1000)
    choice = chosen(gpu, 5, kept=64)
    assert (choice.num_packs, choice.size) == (1, 64)
    assert gpu.asked[0] == (1, 64)
    assert choice.reason.startswith("as many as before; ")
    choice = chosen(Gpu(10, part=0.25), 60, kept=16)
    assert (choice.num_packs, choice.size) == (4, 16)
    assert chosen(Gpu(10, room_gib=2.0), 60, kept=64).size < 64, "memory no longer holds it"


def test_the_reason_has_rate_memory_and_the_alternatives() -> None:
    reason = chosen(Gpu(32, room_gib=24.0), 60).reason
    assert reason == (
        "938 run-steps/s on each, 3.2 of 24 GiB; also measured: one pack of 8 234, one pack of 16 469,"
        " one pack of 64 938, 2 packs of 32 at once 938, 4 packs of 16 at once 938"
    )
