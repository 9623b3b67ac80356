"""Where the time of a step goes, from torch's profiler: shares of the clock by kind of work."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

KINDS = ("matmul", "attention", "norm", "elementwise", "loss", "optimizer", "other")

_MATMUL = re.compile(r"^aten::(mm|bmm|addmm|baddbmm|addbmm|_addmm_activation|mkldnn_linear)|mkl_linear|gemm")
_ATTENTION = re.compile(r"scaled_dot_product|flash_attention")
_OPTIMIZER = re.compile(r"^Optimizer\.|adam|_foreach_|linalg_vector_norm", re.IGNORECASE)
_LOSS = re.compile(r"cross_?entropy|log_softmax|nll_loss|logsumexp|vocab", re.IGNORECASE)
_NORM = re.compile(r"(rms|layer)_?norm", re.IGNORECASE)
_ELEMENTWISE = re.compile(
    r"^aten::_?(add|sub|mul|div|neg|silu|gelu|sigmoid|tanh|exp|pow|sqrt|rsqrt|copy|cat|clone|contiguous|fill|zero|to|"
    r"sum|mean|where|masked_fill|stack|slice_backward|softmax|embedding|index|gather|scatter|cos|sin|clamp|lerp|sq)"
)


def kind_of(names: list[str]) -> str:
    """The kind of an operator by its name and those of what called it, from the inside out."""
    if any(_ATTENTION.search(name) for name in names):
        return "attention"
    if any(_OPTIMIZER.search(name) for name in names):
        return "optimizer"
    if _MATMUL.search(names[0]):
        return "matmul"
    for kind, pattern in (("loss", _LOSS), ("norm", _NORM)):
        if any(pattern.search(name) for name in names):
            return kind
    return "elementwise" if _ELEMENTWISE.search(names[0]) else "other"


def shares_of(profiler: Any, seconds: float) -> dict[str, Any]:
    """The share of every kind, and the ten largest operators; what no operator explains is `other`.

    Args:
        profiler: One that has been stopped.
        seconds: On the clock, of what was profiled.
    """
    spent: dict[str, float] = defaultdict(float)
    operators: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        own = event.self_cpu_time_total / 1e6
        names, parent = [event.name], event.cpu_parent
        while parent is not None:
            names.append(parent.name)
            parent = parent.cpu_parent
        kind = kind_of(names)
        spent[kind] += own
        operators[f"{event.name} ({kind})"] += own
    spent["other"] += max(0.0, seconds - sum(spent.values()))
    largest = sorted(operators.items(), key=lambda pair: -pair[1])[:10]
    return {
        "shares": {kind: round(spent[kind] / seconds, 4) for kind in KINDS},
        "top_operators": {name: round(own / seconds, 4) for name, own in largest},
    }
