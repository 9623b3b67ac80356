"""What ranks do in the tests of dropout: tell which generator every mask is drawn from, train, stop and go on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import engine_programs
import torch
from engine_programs import batch_of, started_engine, steps_of
from megatron.core import tensor_parallel

from kit.layout import Coordinates
from recipes.checkpoint.writing import write_at_once
from recipes.distributed.processes import Processes
from recipes.engines.megatron.engine import MegatronEngine
from recipes.engines.megatron.randomness import reseed
from recipes.engines.protocol import Engine

DROPOUT = 0.2


def dropping(
    processes: Processes, layout: dict[str, Any], family: str, dropout: float = DROPOUT, recompute: str = "none"
) -> Engine:
    recipe = {"recompute": recompute}
    made, _ = started_engine(processes, "megatron", layout, recipe=recipe, family=family, dropout=dropout)
    return made


def numbers_drawn(processes: Processes, layout: dict[str, Any]) -> dict[str, Any]:
    """What a rank draws where activations are whole and where they are cut, after several ways to begin."""
    made = dropping(processes, layout, "gpt2")
    assert isinstance(made, MegatronEngine)

    def drawn(seed: int, step: int) -> tuple[float, float]:
        reseed(seed, step, made._place)
        whole = torch.rand(1).item()
        with tensor_parallel.get_cuda_rng_tracker().fork():
            return whole, torch.rand(1).item()

    return {"place": made._place, "first": drawn(1, 7), "step": drawn(1, 8), "seed": drawn(2, 7), "again": drawn(1, 7)}


def generators_used(processes: Processes, layout: dict[str, Any], family: str, recompute: str) -> dict[str, Any]:
    """The state of the generator at every mask of a training step, forward and computed again, and of evaluation."""
    made = dropping(processes, layout, family, recompute=recompute)
    states: list[tuple[str, str]] = []

    def watched(kind: str, function: Callable[..., Any], probability: str) -> Callable[..., Any]:
        def watching(*arguments: Any, **keywords: Any) -> Any:
            if keywords[probability] and keywords.get("training", True):
                state = torch.get_rng_state().numpy().tobytes()
                states.append((kind, hashlib.sha256(state).hexdigest()))
            return function(*arguments, **keywords)

        return watching

    functional = torch.nn.functional
    attention = watched("attention", functional.scaled_dot_product_attention, "dropout_p")
    plain = functional.dropout

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return watched("hidden", plain, "p")(input, p=p, training=training, inplace=inplace)

    with (
        mock.patch.object(functional, "scaled_dot_product_attention", attention),
        mock.patch.object(functional, "dropout", dropout),
    ):
        made.train_step(batch_of(made, 1), 1e-3)
        trained, states = states, []
        made.mean_loss([batch_of(made, 40)])
    return {"trained": trained, "evaluated": states}


def train(processes: Processes, layout: dict[str, Any], family: str, dropout: float, recompute: str) -> dict[str, Any]:
    """Losses of some steps, the validation loss before them, and after them the weights that tensor ranks share."""
    made = dropping(processes, layout, family, dropout, recompute)
    assert isinstance(made, MegatronEngine)
    before = made.mean_loss([batch_of(made, 40)])
    curve = steps_of(made, 1, 6)
    shared = {
        name: parameter.detach().numpy().copy()
        for chunk in made._chunks
        for name, parameter in chunk.named_parameters()
        if not getattr(parameter, "tensor_model_parallel", False)
    }
    return {"before": before, "curve": curve, "shared": shared, "place": made._place}


def stop_and_go_on(processes: Processes, layout: dict[str, Any], folder: str) -> tuple[Any, Any]:
    """Losses of steps 4 to 6, of a run that went through and of one that was made anew before step 4."""
    made = dropping(processes, layout, "gpt2")
    steps_of(made, 1, 3)
    write_at_once(made.save_state(Path(folder)))
    went_through = steps_of(made, 4, 6)
    again = dropping(processes, layout, "gpt2")
    again.load_weights(partial(_nothing, engine_programs.configuration("megatron", layout, family="gpt2")[1]))
    again.load_state(Path(folder))
    return went_through, steps_of(again, 4, 6)


def _nothing(sized: Any, name: str) -> torch.Tensor:
    return torch.zeros(sized.tensor_shapes()[name])


def same_tensor_group(one: Coordinates, other: Coordinates) -> bool:
    return one._replace(tensor=0) == other._replace(tensor=0)
