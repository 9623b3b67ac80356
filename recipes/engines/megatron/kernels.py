"""Operations of a layer as few passes over memory, for the CPU, where torch has no fused ones.

Each computes what the plain operations compute, in fp32 to the last few bits; its backward pass is written out, so that
nothing is kept or read twice. Tests hold every one against autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class RmsNormFunction(torch.autograd.Function):
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich 2019, section 4)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [..., hidden], weight [hidden] -> the shape of x."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and weight."""
        x, weight, scale = ctx.saved_tensors
        flat, rows = gradients[0].reshape(-1, x.shape[-1]), x.reshape(-1, x.shape[-1])
        scale = scale.reshape(-1, 1)
        product = flat * rows
        # Sums over columns and over rows are matrix-vector products: one pass each, on the fast path.
        along = torch.mv(product, weight)
        weight_gradient = torch.mv(product.t(), scale.squeeze(1))
        factor = along.unsqueeze(1).mul_(scale.pow(3)).div_(-x.shape[-1])
        gradient = torch.mul(flat, weight, out=product).mul_(scale).addcmul_(rows, factor)
        return gradient.view_as(x), weight_gradient, None


class SwiGluFunction(torch.autograd.Function):
    """SiLU(gate) * up (Shazeer 2020)."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        """both [..., 2 x ffn], gate before up -> [..., ffn]."""
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of both."""
        (both,) = ctx.saved_tensors
        gradient = gradients[0]
        gate, up = both.chunk(2, dim=-1)
        answer = torch.empty_like(both)
        of_gate, of_up = answer.chunk(2, dim=-1)
        torch.mul(torch.nn.functional.silu(gate), gradient, out=of_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=of_gate)
        return answer


class RotaryAttentionFunction(torch.autograd.Function):
    """Causal attention over queries and keys that are turned by their positions (Su et al. 2021), packed in and out."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, cosines: Tensor, sines: Tensor, groups: int, scale: float | None) -> Tensor:
        """packed [length, batch, (heads + 2 groups) x head_dim] -> [length, batch, heads x head_dim].

        Args:
            ctx: Of autograd.
            packed: For every group of heads that share keys: its queries, its key, its value.
            cosines, sines: [length, head_dim / 2].
            groups: How many groups.
            scale: Of the scores; None: 1/sqrt(head_dim).
        """
        length, batch, _ = packed.shape
        head = 2 * cosines.shape[-1]
        parts = packed.view(length, batch, groups, -1, head)
        queries, keys, values = parts[..., :-2, :], parts[..., -2:-1, :], parts[..., -1:, :]
        q, k = (_turned(part, cosines, sines) for part in (queries, keys))
        v = values.permute(1, 2, 3, 0, 4).flatten(1, 2)
        repeats = q.shape[1] // groups
        k, v = (t if repeats == 1 else t.repeat_interleave(repeats, dim=1) for t in (k, v))
        mixed, sums = _attend(q, k, v, 0.0, True, scale=scale)
        ctx.save_for_backward(q, k, v, mixed, sums, cosines, sines)
        ctx.groups, ctx.scale = groups, scale
        return mixed.permute(2, 0, 1, 3).reshape(length, batch, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient of packed."""
        q, k, v, mixed, sums, cosines, sines = ctx.saved_tensors
        batch, heads, length, head = q.shape
        gradient = gradients[0].view(length, batch, heads, head).permute(1, 2, 0, 3)
        of_q, of_k, of_v = _attend_backward(gradient, q, k, v, mixed, sums, 0.0, True, scale=ctx.scale)
        repeats = heads // ctx.groups
        if repeats > 1:
            of_k, of_v = (t.view(batch, ctx.groups, repeats, length, head).sum(dim=2) for t in (of_k, of_v))
        answer = gradients[0].new_empty((length, batch, ctx.groups, repeats + 2, head))
        _turn_back(of_q, cosines, sines, answer[..., :-2, :])
        _turn_back(of_k, cosines, sines, answer[..., -2:-1, :])
        answer[..., -1, :].copy_(of_v.permute(2, 0, 1, 3))
        return answer.view(length, batch, -1), None, None, None, None


def _turned(part: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """[length, batch, groups, n, head_dim] -> turned, contiguous [batch, groups x n, length, head_dim]."""
    length, batch, groups, n, head = part.shape
    answer = part.new_empty((batch, groups, n, length, head))
    first, second = part.permute(1, 2, 3, 0, 4).chunk(2, dim=-1)
    left, right = answer.chunk(2, dim=-1)
    torch.mul(first, cosines, out=left).addcmul_(second, sines, value=-1)
    torch.mul(second, cosines, out=right).addcmul_(first, sines)
    return answer.view(batch, groups * n, length, head)


def _turn_back(gradient: Tensor, cosines: Tensor, sines: Tensor, answer: Tensor) -> None:
    """Writes the gradient [batch, heads, length, head_dim] of turned vectors as that of the vectors before."""
    length, batch, groups, n, head = answer.shape
    first, second = gradient.reshape(batch, groups, n, length, head).chunk(2, dim=-1)
    left, right = answer.permute(1, 2, 3, 0, 4).chunk(2, dim=-1)
    torch.mul(first, cosines, out=left).addcmul_(second, sines)
    torch.mul(second, cosines, out=right).addcmul_(first, sines, value=-1)
