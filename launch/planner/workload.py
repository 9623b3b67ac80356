"""What the formulas need to know of a run, read from its configuration as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.flops import DEFAULT_CONVENTION, ModelShape
from kit.layout import Layout
from recipes.training.budget import steps_of


@dataclass(frozen=True)
class Workload:
    """One run, as far as memory and time depend on it.

    Attributes:
        stage, engine: As in the recipe; a stage without an engine computes with Hugging Face's model.
        shape: The model, with the sequence length of the run.
        layout: Degrees of parallelism.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16", "fp16" or "fp8".
        micro_samples: Samples that one rank computes at once.
        global_samples: Samples of one optimizer step of the whole job.
        steps: Optimizer steps.
        convention: How FLOPs are counted.
        parts: The recipe's other keys: `zero`, `lora`, `ppo`, `generation`, ...
        models: How many models an evaluation measures.
    """

    stage: str
    engine: str
    shape: ModelShape
    layout: Layout
    device: str
    precision: str = "fp32"
    micro_samples: int = 1
    global_samples: int = 1
    steps: int = 0
    convention: str = DEFAULT_CONVENTION
    parts: Mapping[str, Any] = field(default_factory=dict)
    models: int = 1

    @property
    def micro_batches(self) -> int:
        """Micro-batches that one rank computes for one optimizer step."""
        return max(1, self.global_samples // (self.layout.data * self.micro_samples))

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step of the whole job, padding included."""
        return self.global_samples * self.shape.sequence_length

    @property
    def recompute(self) -> str:
        """What of a layer's activations is computed again in the backward pass: none, selective or full."""
        return str(self.parts.get("recompute") or "none")

    @property
    def drops(self) -> bool:
        """Whether the model has dropout."""
        return bool(self.get("model", "dropout"))

    @property
    def lora_rank(self) -> int | None:
        """Rank of the adapters; None where every parameter is trained."""
        if self.stage == "sft" and self.parts.get("method") == "lora":
            return int(self.get("lora", "rank", default=8))
        chosen = self.parts.get(str(self.parts.get("algorithm")))
        lora = chosen.get("lora") if isinstance(chosen, Mapping) else None
        return int(lora["rank"]) if isinstance(lora, Mapping) and "rank" in lora else None

    def get(self, *keys: str, default: Any = None) -> Any:
        """A nested key of the recipe's other parts."""
        here: Any = self.parts
        for key in keys:
            here = here.get(key) if isinstance(here, Mapping) else None
        return default if here is None else here


def read_workload(config: Mapping[str, Any], shape: ModelShape, layout: Layout | None, device: str) -> Workload:
    """The workload of a validated configuration."""
    data = config.get("data")
    data = data if isinstance(data, Mapping) else {}
    batch = int(config.get("batch_samples") or 1)
    global_samples = int(data.get("global_batch_samples") or batch)
    budget = config.get("budget")
    return Workload(
        stage=str(config["stage"]),
        engine=str(config.get("engine") or "accelerate"),
        shape=shape,
        layout=layout or Layout(),
        device=device,
        precision=str(config.get("precision") or "fp32"),
        micro_samples=int(data.get("micro_batch_samples") or batch),
        global_samples=global_samples,
        steps=steps_of(budget, global_samples * shape.sequence_length, shape) if budget else 0,
        convention=str((config.get("logging") or {}).get("flops_convention") or DEFAULT_CONVENTION),
        parts=dict(config),
    )
