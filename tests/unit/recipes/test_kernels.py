"""The kernels of the megatron engine, each against the plain operations that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from recipes.data import IGNORED
from recipes.engines.megatron import head
from recipes.engines.megatron.head import LinearCrossEntropy
from recipes.engines.megatron.kernels import RmsNormFunction, RotaryAttentionFunction, SwiGluFunction

Tensor = torch.Tensor


@pytest.fixture
def alone() -> Iterator[Any]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(mine: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """The same outputs and, for some upstream gradient, the same gradients of every input."""
    one, other = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    mixed, expected = mine(*one), plain(*other)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)
    upstream = drawn(*expected.shape, seed=9) if expected.ndim else torch.tensor(1.0)
    mixed.backward(upstream)
    expected.backward(upstream)
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-5)


def test_rms_norm() -> None:
    assert_same(
        lambda x, w: RmsNormFunction.apply(x, w, 1e-5),
        lambda x, w: F.rms_norm(x, (24,), w, 1e-5),
        3 * drawn(5, 2, 24),
        1 + 0.2 * drawn(24, seed=1),
    )


def test_rms_norm_of_zeros_is_finite() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    RmsNormFunction.apply(x, torch.ones(8), 1e-5).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_swiglu() -> None:
    def plain(both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up

    assert_same(SwiGluFunction.apply, plain, drawn(5, 2, 32))


@pytest.mark.parametrize(("groups", "repeats"), [(4, 1), (2, 3)])
def test_rotary_attention(groups: int, repeats: int) -> None:
    length, batch, head_dim = 12, 2, 8
    angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))
    cosines, sines = angles.cos(), angles.sin()

    def turned(x: Tensor) -> Tensor:
        c, s = (torch.cat((table, table), -1)[:, None, None] for table in (cosines, sines))
        first, second = x.chunk(2, -1)
        return x * c + torch.cat((-second, first), -1) * s

    def plain(packed: Tensor) -> Tensor:
        parts = packed.view(length, batch, groups, repeats + 2, head_dim)
        query = parts[..., :repeats, :].reshape(length, batch, -1, head_dim)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (turned(query), turned(parts[..., -2, :]), parts[..., -1, :]))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=repeats > 1)
        return mixed.permute(2, 0, 1, 3).reshape(length, batch, -1)

    assert_same(
        lambda packed: RotaryAttentionFunction.apply(packed, cosines, sines, groups, None),
        plain,
        drawn(length, batch, groups * (repeats + 2) * head_dim),
    )


def test_loss_without_whole_logits(alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "BLOCK_BYTES", 4 * 50 * 7)  # seven tokens at a time: the last block is smaller
    labels = torch.arange(24) * 2 % 50
    labels[[0, 5, 23]] = IGNORED

    def mine(hidden: Tensor, matrix: Tensor) -> Tensor:
        losses = LinearCrossEntropy.apply(hidden, matrix, labels, 0, alone, True)
        assert (losses[labels == IGNORED] == 0).all()
        return 0.5 * losses[labels != IGNORED].sum()

    def plain(hidden: Tensor, matrix: Tensor) -> Tensor:
        return 0.5 * F.cross_entropy(hidden @ matrix.t(), labels, reduction="sum", ignore_index=IGNORED)

    assert_same(mine, plain, 3 * drawn(24, 16), drawn(50, 16, seed=2))


def test_losses_of_unequal_weight_are_refused(alone: Any) -> None:
    hidden = drawn(4, 8).requires_grad_()
    losses = LinearCrossEntropy.apply(hidden, drawn(10, 8, seed=1), torch.arange(4), 0, alone, True)
    with pytest.raises(AssertionError, match="alike"):
        (losses * torch.arange(4)).sum().backward()
