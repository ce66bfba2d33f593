import dataclasses
import hashlib
import io
import zipfile
from typing import Any

import numpy as np
import pytest

from trainables.encoding import Encoding

ARRAYS = [field.name for field in dataclasses.fields(Encoding) if field.name.rpartition("_")[2].isupper()]


def a_vae_encoding() -> Encoding:
    generator = np.random.default_rng(0)
    rows_N = np.array([5, 0, 3, 4], dtype=np.int64)
    return Encoding(
        data="sprites (rendered v1)",
        factor_names=("scale", "pos_x"),
        factor_sizes=(2, 3),
        rows_N=rows_N,
        factors_NK=np.stack(np.unravel_index(rows_N, (2, 3)), axis=1).astype(np.int64),
        mu_ND=generator.normal(size=(4, 3)).astype(np.float32),
        logvar_ND=generator.normal(size=(4, 3)).astype(np.float32),
        kl_D=generator.random(3),
        discrete_D=np.array([False, True, False]),
        recon_nats_N=generator.random(4),
        recon_mse_N=generator.random(4),
    )


def a_gan_encoding_without_factors() -> Encoding:
    return dataclasses.replace(
        a_vae_encoding(),
        factor_names=(),
        factor_sizes=(),
        factors_NK=np.zeros((4, 0), dtype=np.int64),
        logvar_ND=None,
        recon_nats_N=None,
    )


@pytest.fixture(params=[a_vae_encoding, a_gan_encoding_without_factors])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    built: Encoding = request.param()
    return built


def test_reading_gives_back_every_bit_and_type_that_was_written(encoding: Encoding) -> None:
    read = Encoding.from_bytes(encoding.to_bytes())
    for field in dataclasses.fields(Encoding):
        before, after = getattr(encoding, field.name), getattr(read, field.name)
        assert type(after) is type(before), field.name
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype, field.name
            np.testing.assert_array_equal(after, before, err_msg=field.name)
        else:
            assert after == before


def test_values_that_are_not_finite_survive() -> None:
    odd_N = np.array([np.nan, np.inf, -np.inf, -0.0])
    encoding = dataclasses.replace(a_vae_encoding(), recon_nats_N=odd_N)
    read_N = Encoding.from_bytes(encoding.to_bytes()).recon_nats_N
    assert read_N is not None
    assert read_N.tobytes() == odd_N.tobytes()


def test_equal_encodings_give_equal_bytes_whatever_the_clock_says(encoding: Encoding) -> None:
    blob = encoding.to_bytes()
    again = Encoding.from_bytes(blob).to_bytes()
    assert hashlib.sha256(again).digest() == hashlib.sha256(blob).digest()
    with zipfile.ZipFile(io.BytesIO(blob)) as members:
        assert {member.date_time for member in members.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_pickled_member_is_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, data=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Encoding.from_bytes(buffer.getvalue())


def test_ten_thousand_images_take_about_a_megabyte() -> None:
    encoding = a_vae_encoding()
    rows = np.arange(10_000) % 4
    rows_of = {name: getattr(encoding, name)[rows] for name in ARRAYS if "_N" in name}
    large = dataclasses.replace(encoding, **rows_of)
    assert len(large.to_bytes()) < 1.2e6


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_shape_than_its_suffix_says_is_refused(name: str) -> None:
    wrong: Any = np.zeros((7, 7, 7))
    if name in ("rows_N", "kl_D"):
        wrong = np.zeros(7)
    with pytest.raises(ValueError, match=r"has shape .* expected"):
        dataclasses.replace(a_vae_encoding(), **{name: wrong})


def test_a_factor_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="1 factor names for 2"):
        dataclasses.replace(a_vae_encoding(), factor_names=("scale",))


@pytest.mark.parametrize(("value", "said"), [(-1, "from -1 to"), (3, "to 3, expected 0 to 2")])
def test_a_factor_beyond_its_size_is_refused(value: int, said: str) -> None:
    encoding = a_vae_encoding()
    factors_NK = encoding.factors_NK.copy()
    factors_NK[2, 1] = value
    with pytest.raises(ValueError, match=f"factor 'pos_x' has values .*{said}"):
        dataclasses.replace(encoding, factors_NK=factors_NK)


def test_codes_that_float32_cannot_hold_are_refused() -> None:
    encoding = a_vae_encoding()
    with pytest.raises(ValueError, match="beyond the range of float32"):
        dataclasses.replace(encoding, mu_ND=encoding.mu_ND.astype(np.float64) * 1e200)
