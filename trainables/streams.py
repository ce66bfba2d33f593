"""Random numbers without a state: each one is a pure function of (seed, stream, step, index).

Word `index` of a stream is output `index % 4` of Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) under the key (seed, hash 0 of the stream's name) at the counter (index // 4, step mod 2**32,
step // 2**32, hash 1 of the name); the hashes are the first two big-endian words of the name's sha256. Nothing else
enters: not the pack, the slot, how many words are taken, or for how many steps at once. So a resumed run
needs no random state, and a run does not depend on its neighbours.

The float transforms use only sums, products and quotients of float32, each one rounded as IEEE 754 requires and each in a
separate kernel. Hence their bits are also the same on every device, at any number of threads and at any place in a
tensor: `torch.log`, `torch.cos` and, with MKL, even `torch.sqrt` have other last bits elsewhere. A compiler that fuses
a product with a sum would undo this: generate outside of compiled code (a captured CUDA graph fuses nothing).

Words are uint32 values held in int64, which every device computes with. Shape suffixes: T steps, R runs, L blocks of
four words.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from trainables.errors import InputError

Words = TypeVar("Words", torch.Tensor, np.ndarray)

_WORD = 2**32 - 1
_INDEX = 2**31 - 1


def philox(counter: Sequence[Words], key: Sequence[Words]) -> tuple[Words, Words, Words, Words]:
    """Four random words of a counter under a key: Philox 4x32-10, with the constants of Random123.

    Accepts arrays, which are faster on a CPU, or tensors on any device; the operators are the same.

    Args:
        counter: Four words, int64 in 0 .. 2**32 - 1, of any shapes of one or more axes that broadcast.
        key: Two words, likewise.

    Returns:
        Four words of the common shape, int64 in 0 .. 2**32 - 1.
    """
    word0, word1, word2, word3 = counter
    key0, key1 = key
    for round_number in range(10):
        # A wrapped product has correct low 32 bits, and correct high bits under the mask. Words 1 and 3 and the
        # keys carry garbage above 32 bits until the mask of the next round removes it.
        product0, product2 = word0 * 0xD2511F53, word2 * 0xCD9E8D57
        # After three rounds every word has the common shape; until then small shapes make rounds nearly free.
        mixed = _mixed_in_place if round_number > 2 else _mixed
        word0 = mixed(product2, word1, key0)
        word2 = mixed(product0, word3, key1)
        word1, word3 = product2, product0
        key0, key1 = key0 + 0x9E3779B9, key1 + 0xBB67AE85
    return word0, word1 & _WORD, word2, word3 & _WORD


def _mixed(product: Words, word: Words, key: Words) -> Words:
    return ((product >> 32) ^ word ^ key) & _WORD


def _mixed_in_place(product: Words, word: Words, key: Words) -> Words:
    high = product >> 32
    high ^= word
    high ^= key
    high &= _WORD
    return high


class Streams:
    """The random words of the runs of a pack, all named streams from one pass of Philox.

    Args:
        seeds: Seed of each run, 0 .. 2**32 - 1.
        counts: Name of each stream, and how many of its words a run uses per step.
        device: Where to generate them.

    Raises:
        InputError: A seed is out of range.
    """

    def __init__(self, seeds: Sequence[int], counts: Mapping[str, int], device: torch.device | str) -> None:
        for seed in seeds:
            if not 0 <= seed <= _WORD:
                raise InputError(f"Seed {seed} is out of range.\nValid: 0 .. {_WORD}.")
        self._slices: dict[str, slice] = {}
        blocks, num_words = [], 0
        for name, count in counts.items():
            self._slices[name] = slice(num_words, num_words + count)
            blocks.append(_blocks(name, -(-count // 4)))
            num_words += 4 * blocks[-1].shape[1]
        blocks_3L = torch.from_numpy(np.concatenate(blocks, axis=1)).to(device)
        self._numbers_L, self._hashes0_L, self._hashes1_L = blocks_3L
        self._seeds_R1 = torch.tensor(seeds, dtype=torch.int64, device=device)[:, None]

    def bits(self, steps_T: torch.Tensor) -> dict[str, torch.Tensor]:
        """Random words of some steps: for each stream an int64 tensor (T, R, count) of values in 0 .. 2**32 - 1.

        Costs some 120 tensor operations whatever the size, so generate many steps at once: on a CPU as many as keep T *
        R * words below about 250,000. Never waits for the device, and can be captured in a CUDA graph.

        Args:
            steps_T: Steps, int64, not negative, on the device; in any order.
        """
        steps_T11 = steps_T[:, None, None]
        counter = (self._numbers_L, steps_T11 & _WORD, steps_T11 >> 32, self._hashes1_L)
        key = (self._seeds_R1, self._hashes0_L)
        if steps_T.device.type == "cpu":
            arrays = philox([word.numpy() for word in counter], [word.numpy() for word in key])
            words_TRL4 = torch.from_numpy(np.stack(arrays, axis=-1))
        else:
            words_TRL4 = torch.stack(philox(counter, key), dim=-1)
        words_TRW = words_TRL4.flatten(2)
        return {name: words_TRW[:, :, place] for name, place in self._slices.items()}


def _blocks(name: str, num_blocks: int) -> np.ndarray:
    """Number, hash 0 and hash 1 of each block of a stream, (3, num_blocks)."""
    blocks_3L = np.empty((3, num_blocks), dtype=np.int64)
    blocks_3L[0] = np.arange(num_blocks)
    blocks_3L[1:] = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=">u4", count=2)[:, None]
    return blocks_3L


def uniform(bits: torch.Tensor) -> torch.Tensor:
    """Uniform float32 in the open interval (0, 1), one per word, of the shape of `bits`.

    The value is ((bits >> 8) | 1) * 2**-24, the odd multiples of 2**-24: exact in float32, never 0 or 1, symmetric
    about their mean 1/2.
    """
    return ((bits >> 8) | 1).to(torch.float32).mul_(2.0**-24)


def integers(bits: torch.Tensor, high: int) -> torch.Tensor:
    """Uniform int64 in 0 .. high - 1, one per word, of the shape of `bits`: (bits * high) >> 32.

    The probability of a value differs from 1 / high by less than 2**-32, so relatively by less than high / 2**32
    (2e-4 for the 737,280 images of dSprites).

    Raises:
        ValueError: `high` is not in 1 .. 2**31.
    """
    if not 1 <= high <= 2**31:
        raise ValueError(f"integers below {high}: must be in 1 .. 2**31")
    return (bits * high) >> 32


def permutations(bits: torch.Tensor) -> torch.Tensor:
    """Random orders of 0 .. size - 1, int64, from `bits` of shape (..., size): their stable argsort.

    Two words are equal with probability 2**-32, and stay in order then; for size 64 this favours an order by less
    than 5e-7.
    """
    # An index below each word makes the keys distinct, so that any sort of the values gives the same bits.
    keys = (bits << 31) | torch.arange(bits.shape[-1], device=bits.device)
    if keys.device.type == "cpu":
        keys.numpy().sort(axis=-1)  # 13 times as fast as torch.sort on rows of 64
    else:
        keys = keys.sort(dim=-1).values
    return keys.bitwise_and_(_INDEX)


def normal(bits: torch.Tensor) -> torch.Tensor:
    """Standard normal float32, one per word, of the shape of `bits`, whose last axis is even.

    Box and Muller (1958): words 2i and 2i + 1 give the radius and the angle of the normals 2i and 2i + 1. Always
    finite, at most 6.661 in size.

    Raises:
        ValueError: The last axis is odd.
    """
    if bits.shape[-1] % 2:
        raise ValueError(
            f"normal of {bits.shape[-1]} words: expected an even number; generate one more and drop the last normal"
        )
    pairs = bits.unflatten(-1, (-1, 2))
    radius = _radius(pairs[..., 0])
    x, y = _point_on_circle(pairs[..., 1])
    # As complex numbers, because that interleaves five times as fast as stack does.
    return torch.view_as_real(torch.complex(x.mul_(radius), y.mul_(radius))).flatten(-2)


def _radius(bits: torch.Tensor) -> torch.Tensor:
    """sqrt(-2 ln u) of u = (bits + 1) / 2**32, in 0 .. 6.661."""
    # 2**32 u = 2**exponent * mantissa, with the mantissa between sqrt(1/2) and sqrt(2), read off the float's bits.
    floats = (bits + 1).to(torch.float32).view(torch.int32)
    exponent = (floats - 0x3F3504F3).bitwise_right_shift_(23)
    mantissa = floats.sub_(exponent << 23).view(torch.float32)
    # ln m = 2 atanh(s), s = (m - 1) / (m + 1); the coefficients are those of FreeBSD's logf, times -2.
    s = (mantissa - 1).div_(mantissa + 1)
    series = _horner(s * s, (-4.0, -1.3333332539, -0.8000194430, -0.5699757338, -0.4855815768))
    minus_two_log = (32 - exponent).to(torch.float32).mul_(2 * math.log(2)).add_(series.mul_(s))
    # Heron's method, because `torch.sqrt` on a CPU is MKL's, which is not rounded as IEEE 754 requires.
    root = (minus_two_log.view(torch.int32) >> 1).add_(0x1FBD1DF5).view(torch.float32)
    for _ in range(3):
        root = (minus_two_log / root).add_(root).mul_(0.5)
    return root


def _point_on_circle(bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A uniform point (x, y) on the unit circle.

    The word as a signed number is the angle, in the right half of the circle; its lowest bit, which the rounding to
    float32 drops, mirrors x.
    """
    signed = bits.to(torch.int32)
    half_angle = signed.to(torch.float32).mul_(math.pi / 2**33)
    # sin and cos on -pi/4 .. pi/4: the coefficients of Cephes' sinf and cosf.
    z = half_angle * half_angle
    sin = _horner(z, (1.0, -1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4)).mul_(half_angle)
    cos = _horner(z, (1.0, -0.5, 4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5))
    y = cos.mul_(sin).mul_(2)
    x = 1 - sin.mul_(sin).mul_(2)
    x.view(torch.int32).bitwise_xor_(signed.bitwise_left_shift_(31))
    return x, y


def _horner(z: torch.Tensor, coefficients: Sequence[float]) -> torch.Tensor:
    """The polynomial of z with these coefficients, lowest power first."""
    total = z * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total.add_(coefficient).mul_(z)
    return total.add_(coefficients[0])
