from collections.abc import Callable

import pytest

from trainables import ladder
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images


@pytest.mark.parametrize(
    ("num_runs", "size"), [(1, 8), (8, 8), (9, 16), (33, 64), (60, 64), (65, 128), (129, 256), (256, 256)]
)
def test_a_pack_on_a_gpu_has_the_size_of_the_rung_that_holds_it(num_runs: int, size: int) -> None:
    assert ladder.rung(num_runs) == ladder.stack_size("cuda", num_runs) == size


@pytest.mark.parametrize(("num_runs", "size"), [(1, 2), (2, 2), (3, 3), (16, 16)])
def test_on_a_cpu_a_lone_run_alone_has_a_ghost(num_runs: int, size: int) -> None:
    assert ladder.stack_size("cpu", num_runs) == size


@pytest.mark.parametrize(
    ("num_runs", "size"), [(0.3, 2), (2, 2), (7.9, 4), (8, 8), (63.9, 32), (64, 64), (1e6, 128)]
)
def test_memory_holds_the_largest_size_that_fits_it(num_runs: float, size: int) -> None:
    assert ladder.largest(num_runs) == size


@pytest.mark.usefixtures("arithmetic")
def test_a_pack_that_is_too_small_for_its_runs_is_refused(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    with pytest.raises(ValueError, match="size 2 does not hold 3 runs"):
        Pack([small_run("beta_vae", seed) for seed in range(3)], sprites, size=2)


@pytest.mark.usefixtures("arithmetic")
def test_ghosts_fill_a_pack_up_and_are_never_shown(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    runs = [small_run("factor_vae", seed) for seed in range(3)]
    pack, filled = Pack(runs, sprites), Pack(runs, sprites, size=8)
    assert (len(pack.seeds), len(filled.seeds)) == (3, 8)
    for each in (pack, filled):
        each.advance(30)
    assert [len(shown()) for shown in (filled.states, filled.statistics, filled.weights)] == [3] * 3
    for few, many in zip(pack.states(), filled.states(), strict=True):
        assert all((few[name] == many[name]).all() for name in few)
    filled.restore(30, pack.states())
    filled.advance(1)
    pack.advance(1)
    assert all((filled.state(2)[name] == value).all() for name, value in pack.state(2).items())
