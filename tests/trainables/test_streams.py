import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from trainables.errors import InputError
from trainables.streams import Streams, integers, normal, permutations, philox, uniform

WORD = 2**32 - 1
EXTREMES = torch.tensor([0, 1, 2, 2**24, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 256, WORD - 1, WORD])


def words(
    seeds: Sequence[int], counts: Mapping[str, int], steps: Sequence[int] | torch.Tensor
) -> dict[str, torch.Tensor]:
    return Streams(seeds, counts, "cpu").bits(torch.as_tensor(steps))


def draws(bits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Every kind of draw from words whose last axis is even."""
    return uniform(bits), normal(bits), integers(bits, 1536), permutations(bits)


def python_philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox 4x32-10 as the paper writes it, in Python's unbounded integers."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for _ in range(10):
        product0, product1 = r0 * 0xD2511F53, r1 * 0xCD9E8D57
        r0, l0 = (product1 >> 32) ^ l0 ^ k0, product1 & WORD
        r1, l1 = (product0 >> 32) ^ l1 ^ k1, product0 & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return r0, l0, r1, l1


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("to_words", [torch.tensor, np.array])
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([WORD] * 4, [WORD] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_vectors_of_random123(
    to_words: Callable[[list[int]], Any], counter: list[int], key: list[int], expected: list[int]
) -> None:
    found = philox([to_words([w]) for w in counter], [to_words([w]) for w in key])
    assert [int(w[0]) for w in found] == expected


def test_philox_broadcasts_any_shapes() -> None:
    sizes = (2, 3, 4, 5, 6, 7)
    own_axes = [
        torch.randint(2**32, (1,) * i + (n,) + (1,) * (5 - i), generator=torch.Generator().manual_seed(i))
        for i, n in enumerate(sizes)
    ]
    full = [words.expand(sizes).reshape(-1).numpy() for words in own_axes]
    for found, expected in zip(philox(own_axes[:4], own_axes[4:]), philox(full[:4], full[4:]), strict=True):
        assert (found.reshape(-1).numpy() == expected).all()


def test_a_word_is_the_documented_function_of_seed_name_step_and_index() -> None:
    seeds, steps, counts = [0, 7, WORD], [0, 5, 2**32 - 1, 2**32 + 5, 2**62], {"batch": 3, "noise": 9}
    found = words(seeds, counts, steps)
    for name, count in counts.items():
        digest = hashlib.sha256(name.encode()).hexdigest()
        hash0, hash1 = int(digest[:8], 16), int(digest[8:16], 16)
        expected = [
            [
                [
                    python_philox((i // 4, step % 2**32, step // 2**32, hash1), (seed, hash0))[i % 4]
                    for i in range(count)
                ]
                for seed in seeds
            ]
            for step in steps
        ]
        assert found[name].tolist() == expected


def test_results_do_not_depend_on_the_chunk_of_steps_or_the_length_of_the_draw() -> None:
    steps = torch.arange(2**32 - 20, 2**32 + 17)
    streams = Streams([3, 4], {"noise": 70}, "cpu")
    whole = streams.bits(steps)["noise"]
    for size in (1, 3, 32):
        chunks = [streams.bits(chunk)["noise"] for chunk in steps.split(size)]
        assert torch.equal(torch.cat(chunks), whole)
        for kind, expected in enumerate(draws(whole)):
            assert torch.equal(torch.cat([draws(chunk)[kind] for chunk in chunks]), expected)
    assert torch.equal(words([3, 4], {"noise": 33}, steps)["noise"], whole[:, :, :33])
    assert torch.equal(streams.bits(steps.flip(0))["noise"], whole.flip(0))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_does_not_know_its_neighbours(set_threads: Callable[[int], None], threads: int) -> None:
    # Just large enough that torch splits the work of 9 runs between threads, in lengths with every kind of SIMD tail.
    counts, steps = {"noise": 2 * 331, "odd": 13, "permutation": 2 * 35}, range(12)
    set_threads(1)
    alone = [
        {name: draws(w[:, :, : w.shape[2] // 2 * 2]) for name, w in words([seed], counts, steps).items()}
        for seed in range(9)
    ]
    set_threads(threads)
    shuffled = np.random.default_rng(0)
    for num_runs in range(1, 10):
        seeds = shuffled.permutation(9)[:num_runs].tolist()
        for name, w in words(seeds, dict(reversed(counts.items())), steps).items():
            for kind, stacked in enumerate(draws(w[:, :, : w.shape[2] // 2 * 2])):
                for slot, seed in enumerate(seeds):
                    assert torch.equal(stacked[:, slot], alone[seed][name][kind][:, 0])


def test_float_bits_do_not_depend_on_the_place_in_a_tensor_or_on_flushed_denormals() -> None:
    bits = words([1], {"noise": 4096}, [0])["noise"][0, 0]
    expected_uniform, expected_normal = uniform(bits), normal(bits)
    for start, stop in ((2, 4), (4, 10), (6, 46), (10, 10 + 78), (0, 4094), (1022, 4096)):
        assert torch.equal(uniform(bits[start:stop]), expected_uniform[start:stop])
        assert torch.equal(normal(bits[start:stop]), expected_normal[start:stop])
    torch.set_flush_denormal(True)
    flushed = normal(torch.cat((bits, EXTREMES)))
    torch.set_flush_denormal(False)
    assert torch.equal(flushed, torch.cat((expected_normal, normal(EXTREMES))))


def test_streams_seeds_steps_and_indices_all_give_other_numbers() -> None:
    steps = [0, 1, 2, 2**31, 2**32, 2**32 + 1, 2**33, 2**63 - 1]
    seeds = [0, 1, 2, 2**16, 2**31, WORD]
    found = words(seeds, dict.fromkeys(("a", "b", "noise", "noise2", ""), 256), steps)
    blocks = torch.cat([w.reshape(-1, 4) for w in found.values()]).numpy()
    assert len(np.unique(blocks, axis=0)) == len(blocks) == 5 * 6 * 8 * 64


def test_normals_are_those_of_box_and_muller() -> None:
    bits = torch.cat((words([5], {"noise": 20_000}, [0])["noise"].flatten(), EXTREMES, EXTREMES.flip(0)))
    radius_word, angle_word = bits.reshape(-1, 2).numpy().T
    u = (radius_word + 1).astype(np.float32) / 2.0**32
    angle = angle_word.astype(np.int32) * (np.pi / 2**32)
    side = 1 - 2 * (angle_word % 2)
    radius = np.sqrt(-2 * np.log(u.astype(np.float64)))
    expected = np.stack((side * radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)
    np.testing.assert_allclose(normal(bits).numpy(), expected, atol=3e-6)


def test_normals_have_the_same_bits_on_every_machine() -> None:
    # To change this digest is to change the trajectory of every run.
    found = normal(torch.cat((words([5], {"noise": 20_000}, [0])["noise"].flatten(), EXTREMES)))
    digest = hashlib.sha256(found.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "9d9b094d25b8456de7b45a565c24d869551bc9ea6517d74c56ef013ad87f0f15"


def test_normals_are_finite_at_every_extreme() -> None:
    near = torch.arange(1 << 12)
    edges = torch.cat([(2**k + near - (1 << 11)).clamp(0, WORD) for k in range(33)])
    for pairs in (torch.stack((edges, edges.flip(0)), -1), torch.cartesian_prod(EXTREMES, EXTREMES)):
        found = normal(pairs)
        assert found.isfinite().all()
        assert found.abs().max() <= 6.661


def test_normals_are_standard_normal() -> None:
    found = normal(words(range(8), {"noise": 6400}, range(8))["noise"])
    assert found.dtype == torch.float32
    flat = found.double().numpy().reshape(-1)
    n = len(flat)
    assert abs(flat.mean()) < 4 / np.sqrt(n)
    assert abs(flat.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((flat**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert stats.kstest(np.arctan2(flat[::2], flat[1::2]), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


def test_uniforms_are_exact_inside_the_open_interval() -> None:
    found = uniform(EXTREMES).double()
    assert found[0] == 2**-24
    assert found[-1] == 1 - 2**-24
    assert torch.equal(found, ((EXTREMES >> 9).double() + 0.5) * 2**-23)
    assert torch.equal(uniform(WORD - EXTREMES).double(), 1 - found)


def test_uniforms_are_uniform() -> None:
    flat = uniform(words(range(8), {"noise": 6400}, range(8))["noise"]).double().numpy().reshape(-1)
    assert abs(flat.mean() - 0.5) < 4 / np.sqrt(12 * len(flat))
    assert stats.kstest(flat, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("high", [2, 3, 60, 1536, 2**31])
def test_integers_cover_their_range_evenly(high: int) -> None:
    bits = words(range(4), {"batch": 4096}, range(10))["batch"]
    found = integers(bits, high).flatten().numpy()
    if high == 2**31:
        assert stats.kstest(found / high, "uniform").pvalue > 1e-3
    else:
        assert stats.chisquare(np.bincount(found, minlength=high)).pvalue > 1e-3


@pytest.mark.parametrize("high", [1, 2, 737_280, 2**31])
def test_integers_reach_both_ends_of_their_range_and_no_further(high: int) -> None:
    assert integers(EXTREMES[[0, -1]], high).tolist() == [0, high - 1]


def test_integers_refuse_a_range_that_they_cannot_cover() -> None:
    for high in (0, 2**31 + 1):
        with pytest.raises(ValueError, match=f"below {high}"):
            integers(EXTREMES, high)


def test_permutations_are_the_stable_order_of_the_words() -> None:
    bits = words(range(3), {"permutation": 6 * 64}, range(5))["permutation"].unflatten(-1, (6, 64))
    assert torch.equal(permutations(bits), bits.argsort(dim=-1, stable=True))
    assert permutations(torch.tensor([WORD, 4, WORD, 4, 0])).tolist() == [4, 1, 3, 0, 2]


def test_permutations_are_uniform() -> None:
    bits = words(range(4), {"permutation": 3 * 2000}, range(5))["permutation"].unflatten(-1, (-1, 3))
    ranks = permutations(bits).reshape(-1, 3).numpy() @ [9, 3, 1]
    _, counts = np.unique(ranks, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3
    bits = words(range(4), {"permutation": 64 * 200}, range(5))["permutation"].unflatten(-1, (-1, 64))
    for place in (0, 31, 63):
        taken = np.bincount(permutations(bits)[..., place].flatten().numpy(), minlength=64)
        assert stats.chisquare(taken).pvalue > 1e-3


def test_streams_seeds_steps_and_indices_are_uncorrelated() -> None:
    found = words(range(6), {f"stream {i}": 4000 for i in range(4)}, range(6))
    rows = np.concatenate([normal(w).double().reshape(-1, 4000).numpy() for w in found.values()])
    correlations = np.corrcoef(rows)[np.triu_indices(len(rows), k=1)]
    assert np.abs(correlations).max() < 5.5 / np.sqrt(4000)
    assert stats.kstest(correlations * np.sqrt(4000), "norm").pvalue > 1e-3
    for lag in (1, 2, 3, 4, 64):
        assert abs((rows[:, lag:] * rows[:, :-lag]).mean()) < 4 / np.sqrt(rows.size)


def test_every_bit_of_a_word_is_fair() -> None:
    found = words(range(8), {"bits": 4096}, range(8))["bits"].flatten()
    shares = torch.stack([((found >> bit) & 1).double().mean() for bit in range(32)])
    assert (shares - 0.5).abs().max() < 4.5 * 0.5 / np.sqrt(len(found))


def test_a_seed_out_of_range_and_an_odd_number_of_words_are_refused() -> None:
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match=f"Seed {seed} is out of range"):
            Streams([0, seed], {"batch": 4}, "cpu")
    with pytest.raises(ValueError, match="normal of 3 words"):
        normal(torch.zeros(2, 3, dtype=torch.int64))


def test_tensors_and_arrays_give_the_same_words() -> None:
    generator = torch.Generator().manual_seed(0)
    *counter, key0, key1 = (torch.randint(2**32, (999,), generator=generator) for _ in range(6))
    found = philox(counter, [key0, key1])
    expected = philox([w.numpy() for w in counter], [key0.numpy(), key1.numpy()])
    assert all((f.numpy() == e).all() for f, e in zip(found, expected, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_bits_and_can_replay_them_from_a_graph() -> None:
    seeds, counts = [0, 9, WORD], {"batch": 13, "noise": 662}
    on_gpu, steps = Streams(seeds, counts, "cuda"), torch.arange(5, device="cuda")
    on_gpu.bits(steps)
    draws(on_gpu.bits(steps)["noise"])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = draws(on_gpu.bits(steps)["noise"])
    for first in (0, 2**32 - 2):
        steps.copy_(torch.arange(first, first + 5))
        graph.replay()
        for found, expected in zip(
            captured, draws(words(seeds, counts, range(first, first + 5))["noise"]), strict=True
        ):
            assert torch.equal(found.cpu(), expected)
