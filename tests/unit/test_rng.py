"""Philox against its published answers and against itself in Python integers; addresses and nothing else move a draw."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import naive
from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.rng import Stage

ONES = 0xFFFFFFFF
U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)

# Random123, kat_vectors: "philox4x32 10"
KNOWN = {
    "zeros": ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    "ones": ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    "digits of pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}

# drawn once; they may never change: a recipe and its seed are a promise
PINNED = {
    "all zero": ((0, 0, 0, 0, 0), 0.3990464708489645),
    "a key": ((0, 0, 0x2F42665B399EF840, 0, 0), 0.4699205027491078),
    "second block": ((1, 2, 0x514CA9C36774B300, 1, 3), 0.26769357379938397),
    "all at their ends": (((1 << 64) - 1, (1 << 32) - 1, (1 << 64) - 1, 255, 5), 0.21265711957755196),
    "patch size stage": ((12345678901234567890, 7, 0xF8D440BE5E97CEE8, 3, 0), 0.5991340573827807),
}


def draws(seed: int = 0, epoch: int = 0, keys: object = (1, 2, 3), stage: int = 0, n: int = 4) -> np.ndarray:
    return rng.uniforms(seed, epoch, np.array(keys, dtype=np.uint64), stage, n)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN.values(), ids=KNOWN)
def test_philox_gives_the_published_answers(counter, key, words) -> None:
    arrays = tuple(np.array([word], dtype=np.uint64) for word in counter)
    assert tuple(int(word[0]) for word in rng.philox4x32(arrays, key)) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN.values(), ids=KNOWN)
def test_the_twin_gives_the_published_answers(counter, key, words) -> None:
    assert naive.philox4x32(counter, key) == words


@given(st.tuples(U32, U32, U32, U32), st.tuples(U32, U32))
def test_philox_equals_its_twin(counter, key) -> None:
    arrays = tuple(np.array([word, 0], dtype=np.uint64) for word in counter)
    assert tuple(int(word[0]) for word in rng.philox4x32(arrays, key)) == naive.philox4x32(counter, key)


@given(seed=U64, epoch=U32, keys=st.lists(U64, max_size=4), stage=st.integers(0, 255), n=st.integers(0, 9))
def test_uniforms_equal_their_twin(seed, epoch, keys, stage, n) -> None:
    expected = [[naive.uniform(seed, epoch, key, stage, draw) for draw in range(n)] for key in keys]
    assert draws(seed, epoch, keys, stage, n).tolist() == expected


@given(seed=U64, epoch=U32, keys=st.lists(U64, max_size=2), stage=st.integers(0, 255), n=st.integers(10, 40))
@example(seed=ONES | ONES << 32, epoch=ONES, keys=[ONES | ONES << 32], stage=255, n=33)
def test_many_draws_equal_the_same_twin(seed, epoch, keys, stage, n) -> None:
    expected = [[naive.uniform(seed, epoch, key, stage, draw) for draw in range(n)] for key in keys]
    assert draws(seed, epoch, keys, stage, n).tolist() == expected


@pytest.mark.parametrize(("address", "value"), PINNED.values(), ids=PINNED)
def test_uniforms_never_change(address, value) -> None:
    seed, epoch, key, stage, draw = address
    assert draws(seed, epoch, [key], stage, draw + 1)[0, draw] == value


@given(keys=st.lists(U64, min_size=1, max_size=6), n=st.integers(1, 5), data=st.data())
def test_a_row_does_not_depend_on_the_other_keys(keys, n, data) -> None:
    order = data.draw(st.permutations(range(len(keys))))
    assert np.array_equal(draws(keys=[keys[i] for i in order], n=n), draws(keys=keys, n=n)[order])
    assert np.array_equal(draws(keys=keys[:1], n=n), draws(keys=keys, n=n)[:1])


@given(seed=U64, few=st.integers(0, 9), more=st.integers(0, 9))
def test_first_draws_do_not_depend_on_how_many_follow(seed, few, more) -> None:
    assert np.array_equal(draws(seed, n=few), draws(seed, n=few + more)[:, :few])


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": 1 << 32},
        {"epoch": 1},
        {"stage": Stage.DROP},
        {"keys": (4, 5, 6)},
        {"keys": (1 << 32, 1 << 40, 1 << 63)},
    ],
    ids=["seed", "seed's upper half", "epoch", "stage", "key", "key's upper half"],
)
def test_every_part_of_the_address_moves_the_draws(other) -> None:
    assert not np.intersect1d(draws(n=100), draws(**{"n": 100, **other})).size


def test_addresses_do_not_overlap() -> None:
    tables = [draws(seed, epoch, range(8), stage, 8) for seed in (0, 1) for epoch in (0, 1, 2) for stage in Stage]
    assert len(np.unique(tables)) == len(tables) * 64


def test_draws_are_float64_in_zero_to_one() -> None:
    u = draws(keys=range(1000), n=7)
    assert (u.dtype, u.shape) == (np.float64, (1000, 7))
    assert u.min() >= 0
    assert u.max() < 1
    assert np.array_equal(u * 2.0**53, np.floor(u * 2.0**53))


def test_the_largest_words_stay_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "philox4x32", lambda counter, key: tuple(np.full_like(c, ONES) for c in counter))
    assert draws(n=2).tolist() == [[1 - 2.0**-53] * 2] * 3


def chance(counts) -> float:
    """Return the probability of counts as uneven as these, by scipy, which takes two seconds to import."""
    from scipy import stats

    return stats.chisquare(counts).pvalue


UNIFORM = {
    "over counting keys": lambda: draws(5, 1, range(100_000), Stage.RESIZE, 1),
    "second draw": lambda: draws(5, 1, range(100_000), Stage.DROP, 2)[:, 1],
    "over draws": lambda: draws(5, 1, [9], Stage.KEEP, 100_000),
    "over hashed names": lambda: rng.uniforms(
        5, 1, rng.key_hash(f"shard-{i // 1000}.tar/{i:08d}" for i in range(100_000)), Stage.DROP, 1
    ),
}


@pytest.mark.parametrize("drawn", UNIFORM.values(), ids=UNIFORM)
def test_draws_are_uniform(drawn) -> None:
    counts = np.bincount((drawn().ravel() * 200).astype(np.int64), minlength=200)
    assert counts.sum() == 100_000
    assert 1e-3 < chance(counts) < 1 - 1e-3


def test_stages_are_independent() -> None:
    first, second = (draws(keys=range(100_000), stage=stage, n=1)[:, 0] for stage in (Stage.RESIZE, Stage.DROP))
    table = np.histogram2d(first, second, bins=10, range=[[0, 1], [0, 1]])[0]
    assert 1e-3 < chance(table.ravel()) < 1 - 1e-3


def test_stages_keep_their_numbers() -> None:
    names = "RESIZE DROP KEEP PATCH_SIZE SHARDS HEADERS BALANCE CROP FLIP AUGMENT WORKERS"
    assert [stage.name for stage in sorted(Stage)] == names.split()
    assert sorted(Stage) == list(range(len(Stage)))


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("seed", -1, "0 … 18446744073709551615"),
        ("seed", 1 << 64, "0 … 18446744073709551615"),
        ("epoch", -1, "0 … 4294967295"),
        ("epoch", 1 << 32, "0 … 4294967295"),
        ("stage", -1, "0 … 255"),
        ("stage", 256, "0 … 255"),
        ("n", -1, "0 … 16777216"),
        ("n", (1 << 24) + 1, "0 … 16777216"),
    ],
)
def test_a_number_out_of_range_is_named(name, value, limit) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be in {limit}, got {value}"):
        draws(**{name: value})


def test_nothing_asked_is_nothing_drawn() -> None:
    assert draws(n=0).shape == (3, 0)
    assert draws(keys=[]).shape == (0, 4)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_key_hash_is_eight_bytes_of_blake2b(key) -> None:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    assert rng.key_hash([key]).tolist() == [int.from_bytes(digest, "little")]


def test_key_hashes_never_change() -> None:
    hashes = rng.key_hash(["a", "shard-0000.tar/n01440764_10026", "päth/ü"])
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [0x2F42665B399EF840, 0x514CA9C36774B300, 0xF8D440BE5E97CEE8]
    assert rng.key_hash([]).shape == (0,)


def test_any_string_has_a_hash() -> None:
    assert len({*rng.key_hash(["\ud800", "\udc00", "\udc80", ""]).tolist()}) == 4


def test_a_file_name_that_is_not_utf8_has_a_hash() -> None:
    name = b"photo\xff.jpg".decode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(b"photo\xff.jpg", digest_size=8).digest()
    assert rng.key_hash([name]).tolist() == [int.from_bytes(digest, "little")]


@pytest.mark.parametrize("k", [0, 6])
def test_more_or_less_than_there_are_cannot_be_chosen(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k must be in 1 … n=5, got {k}"):
        rng.smallest(1, 2, np.zeros(2, dtype=np.uint64), rng.Stage.KEEP, [9, 5], [9, k])


@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 70), st.integers(1, 70)), max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_the_smallest_of_the_uniforms_of_many(many: list[tuple[int, int, int]], epoch: int) -> None:
    hashes = np.array([key for key, _, _ in many], dtype=np.uint64)
    chosen = rng.smallest(1, epoch, hashes, Stage.KEEP, [n for _, n, _ in many], [min(k, n) for _, n, k in many]).tolist()
    for key, n, k in many:
        u = rng.uniforms(1, epoch, np.array([key], dtype=np.uint64), Stage.KEEP, n)[0]
        assert chosen[: min(k, n)] == sorted(np.argsort(u)[:k].tolist())
        del chosen[: min(k, n)]
    assert not chosen
