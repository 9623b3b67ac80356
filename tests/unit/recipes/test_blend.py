from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import real_text

from kit.config import parse
from kit.errors import UserError
from recipes.blend import BLOCK, BlendStream, apportion, shares
from recipes.data import Batch, SampleStream, batches
from recipes.pretrain.config import PretrainConfig
from recipes.zero.config import ZeroConfig

LENGTH = 16
WEIGHTS = {"code": 5.0, "books": 3.0, "notes": 1.5, "rare": 0.01}


@pytest.fixture(scope="module")
def blend() -> BlendStream:
    return make(shares(WEIGHTS))


def make(weights: dict[str, float], seed: int = 7) -> BlendStream:
    text = real_text.byte_tokens()
    sizes = {"code": 9000, "books": 40_000, "notes": 3000, "rare": 20_000}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    streams = {name: SampleStream(text[starts[name] :][: sizes[name]], LENGTH, seed) for name in weights}
    return BlendStream(streams, weights, seed)


@pytest.mark.parametrize("weights", [[1.0], [1, 1, 1], [0.7, 0.2, 0.1], [5, 3, 1.5, 0.01], [1] * 12, [1e-6, 1, 1e6]])
def test_running_counts_stay_within_two_of_the_weights_and_never_shrink(weights: list[float]) -> None:
    exact = [Fraction(w) / sum(map(Fraction, weights)) for w in weights]
    before = [0] * len(weights)
    for places in range(3000):
        counts = apportion(weights, places)
        assert sum(counts) == places
        assert all(abs(count - part * places) <= 2 for count, part in zip(counts, exact, strict=True))
        assert all(now >= then for now, then in zip(counts, before, strict=True))
        before = counts


def test_counts_far_away_are_exact_without_a_walk(blend: BlendStream) -> None:
    places = BLOCK * 4_000_000_000
    for count, share in zip(blend.counts(places), blend.weights.values(), strict=True):
        assert abs(count - Fraction(share) * places) <= 2


def test_the_order_inside_a_block_is_drawn_and_its_counts_are_the_quotas(blend: BlendStream) -> None:
    drawn = blend.sources_at(0, 40 * BLOCK)
    for blocks in range(1, 41):
        counts = np.bincount(drawn[: blocks * BLOCK], minlength=4)
        assert all(abs(n - w * blocks * BLOCK) <= 2 for n, w in zip(counts, blend.weights.values(), strict=True))
    assert list(drawn[:BLOCK]) != sorted(drawn[:BLOCK])
    assert list(drawn[:BLOCK]) != list(drawn[BLOCK : 2 * BLOCK])
    assert list(make(shares(WEIGHTS), seed=8).sources_at(0, BLOCK)) != list(drawn[:BLOCK])


def test_every_source_is_read_in_its_own_shuffled_epochs(blend: BlendStream) -> None:
    places = 3 * len(blend.sources["code"])
    whole = blend.batch(1, 0, places)
    assert whole.sources is not None
    for number, stream in enumerate(blend.sources.values()):
        mine = whole.tokens[whole.sources == number]
        np.testing.assert_array_equal(mine, stream.batch(1, 0, len(mine)).tokens)
    counts = blend.counts(places)
    assert counts[0] > len(blend.sources["code"]), "more than an epoch, or the test says little"
    assert blend.epochs(places)["code"] == counts[0] / len(blend.sources["code"])


def rows(found: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    sources = [batch.sources for batch in found if batch.sources is not None]
    return np.concatenate([batch.tokens for batch in found]), np.concatenate(sources)


@pytest.mark.parametrize(("degree", "then"), [(1, 1), (2, 2), (4, 4), (2, 1), (1, 8)])
def test_an_interrupted_run_sees_what_an_uninterrupted_one_sees(blend: BlendStream, degree: int, then: int) -> None:
    tokens, sources = rows(list(batches(blend, range(1, 61), 16)))
    found: list[Batch] = []
    for steps, ranks in ((range(1, 38), degree), (range(38, 61), then)):
        resumed = make(shares(WEIGHTS))  # as a new process has it
        parts = [list(batches(resumed, steps, 16, rank, ranks)) for rank in range(ranks)]
        found += [batch for step in zip(*parts, strict=True) for batch in step]
    np.testing.assert_array_equal(rows(found)[0], tokens)
    np.testing.assert_array_equal(rows(found)[1], sources)


def test_weights_are_normalised() -> None:
    assert shares({"a": 3.0, "b": 1.0}) == {"a": 0.75, "b": 0.25}
    assert math.isclose(sum(shares(WEIGHTS).values()), 1.0)


def recipe(**changed: Any) -> dict[str, Any]:
    return {
        "name": "test",
        "parents": {"code": "run-1", "books": "run-2"},
        "model": {"layers": 2, "hidden": 32, "heads": 2, "kv_heads": 2, "ffn": 64},
        "data": {"sequence_length": 16, "global_batch_samples": 4, "blend": {"code": 1, "books": 2}},
        "optimizer": {"learning_rate": 1e-3},
        "budget": {"steps": 4},
    } | changed


def data(**changed: Any) -> dict[str, Any]:
    return {"sequence_length": 16, "global_batch_samples": 4} | changed


def test_a_blend_of_parents_is_a_recipe() -> None:
    assert parse(PretrainConfig, recipe(), "x").data.blend == {"code": 1.0, "books": 2.0}
    zero = recipe(parents={"code": "a", "books": "b", "model": "c"})
    del zero["model"]
    assert parse(ZeroConfig, zero, "x").data.blend == {"code": 1.0, "books": 2.0}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": data(blend={"code": 1, "boks": 2})}, "data.blend weighs boks"),
        ({"data": data(blend={"code": 1})}, "no weight to the parents books"),
        ({"data": data(blend={"code": 1, "books": 0})}, "greater than 0"),
        ({"data": data(blend={"code": 1, "books": -2})}, "greater than 0"),
        ({"data": data(blend={"code": 1, "books": math.inf})}, "finite"),
        ({"data": data(blend={"code": 1, "my books": 2}), "parents": {"code": "a", "my books": "b"}}, "my books"),
        ({"data": data(blend={"model": 1}), "parents": {"model": "a"}}, "data.blend weighs model"),
        (
            {"data": data(reset_attention=True), "parents": {}, "engine": "accelerate"},
            "reset_attention with engine acc",
        ),
    ],
)
def test_a_blend_that_does_not_fit_is_refused_in_words(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(PretrainConfig, recipe(**changed), "recipe.yaml")


def test_deepspeed_refuses_to_reset_attention() -> None:
    with pytest.raises(UserError, match="reset_attention with engine deepspeed"):
        parse(ZeroConfig, recipe(data=data(reset_attention=True), parents={"data": "a"}), "recipe.yaml")
