"""FLOPs conventions against figures worked out by hand, and parameters against the model they describe."""

from __future__ import annotations

import pytest

from kit.errors import UserError
from kit.flops import (
    CONVENTIONS,
    DEFAULT_CONVENTION,
    ModelShape,
    flops_per_token,
    hardware_flops_per_token,
    mfu,
    parameter_count,
)

SMALL = ModelShape(layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, ffn=16, vocab=32, sequence_length=10)
# A layer of SMALL: queries 8x8, keys and values 8x4 each, output 8x8 = 192; MLP 3 x 8x16 = 384.
LAYER = 192 + 384
NORMS = 5 * 8
OUTPUT = 32 * 8


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("kaplan_6n", 6 * (2 * LAYER + NORMS)),
        ("palm", 6 * (2 * LAYER + NORMS + OUTPUT) + 12 * 2 * 2 * 4 * 10),
        ("megatron", 6 * (2 * LAYER + OUTPUT) + 12 * 2 * 8 * 10),
        # A causal query sees 1 to 10 keys, 5.5 on average: 4 x 5.5 x 8 forward, three times that with backward.
        ("causal", 6 * (2 * LAYER + OUTPUT) + 2 * 3 * 4 * 5.5 * 8),
    ],
)
def test_a_convention_gives_the_figure_worked_out_by_hand(convention: str, expected: float) -> None:
    assert flops_per_token(convention, SMALL) == expected


@pytest.mark.parametrize(
    ("convention", "selective", "full"),
    [
        # The forward pass of both layers once more, by hand; attention scores forward are 4 x keys x 8 a layer.
        ("kaplan_6n", 0, 2 * (2 * LAYER + NORMS)),
        ("palm", 2 * 4 * 10 * 8, 2 * (2 * LAYER + NORMS) + 2 * 4 * 10 * 8),
        ("megatron", 2 * 4 * 10 * 8, 2 * 2 * LAYER + 2 * 4 * 10 * 8),
        ("causal", 2 * 4 * 5.5 * 8, 2 * 2 * LAYER + 2 * 4 * 5.5 * 8),
    ],
)
def test_hardware_flops_count_what_is_done_again(convention: str, selective: float, full: float) -> None:
    model = flops_per_token(convention, SMALL)
    assert hardware_flops_per_token(convention, SMALL, "none") == model
    assert hardware_flops_per_token(convention, SMALL, "selective") == pytest.approx(model + selective)
    assert hardware_flops_per_token(convention, SMALL, "full") == pytest.approx(model + full)


def test_full_recomputation_is_the_factor_of_the_paper_where_the_vocabulary_does_not_count() -> None:
    # Narayanan et al. 2021: 96 B s l h^2 (...) with full recomputation, 72 of them are the model's.
    big = SMALL.model_copy(update={"layers": 1_000_000})
    ratio = hardware_flops_per_token("megatron", big, "full") / flops_per_token("megatron", big)
    assert ratio == pytest.approx(96 / 72, rel=1e-5)


def test_megatrons_convention_is_the_formula_of_the_paper_for_the_model_of_the_paper() -> None:
    # Narayanan et al. 2021 count 96 B s l h^2 (1 + s/6h + V/16lh) with recomputation: 72 and V/12lh without.
    layers, hidden, vocab, length = 24, 2304, 51_200, 2048
    shape = ModelShape(
        layers=layers,
        hidden=hidden,
        heads=24,
        kv_heads=24,
        head_dim=96,
        ffn=4 * hidden,
        vocab=vocab,
        sequence_length=length,
        gated=False,
    )
    paper = 72 * layers * hidden**2 * (1 + length / (6 * hidden) + vocab / (12 * layers * hidden))
    assert flops_per_token("megatron", shape) == pytest.approx(paper, rel=1e-12)


def test_every_convention_has_words_and_a_source_and_an_unknown_one_is_refused() -> None:
    assert DEFAULT_CONVENTION in CONVENTIONS
    assert all(convention.words and convention.source for convention in CONVENTIONS.values())
    with pytest.raises(UserError, match="guessed") as caught:
        flops_per_token("guessed", SMALL)
    assert DEFAULT_CONVENTION in caught.value.expected


def test_mfu_is_the_share_of_the_peak() -> None:
    assert mfu(tokens_per_second=1000, flops_per_token=2e6, peak_flops_per_second=8e9) == 0.25


@pytest.mark.parametrize(
    "shape",
    [
        SMALL,
        SMALL.model_copy(update={"kv_heads": 2, "tied": True}),
        SMALL.model_copy(update={"head_dim": 6, "layers": 5, "vocab": 1000}),
        # Llama 2 7B, which its own paper calls 6.7 billion.
        ModelShape(
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=32,
            head_dim=128,
            ffn=11_008,
            vocab=32_000,
            sequence_length=4096,
        ),
    ],
)
def test_parameters_are_those_of_the_model_that_transformers_builds(shape: ModelShape) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.ffn,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert parameter_count(shape) == sum(parameter.numel() for parameter in model.parameters())
