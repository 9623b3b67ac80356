"""The model that is tuned: loaded with its tokenizer, given the template's tokens, wrapped by LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from kit.flops import flops_per_token
from kit.run.directory import RunDirectory
from recipes.chat.generation import load_model
from recipes.chat.template import MARKS, ChatTemplate
from recipes.dataset import parent_artifacts
from recipes.model.families import model_config
from recipes.sft.config import LoraConfig, SftConfig

WITHOUT_SHAPE = "kaplan_6n"
"""The convention for FLOPs of a model of an unknown family: it needs nothing but the number of parameters."""


@dataclass(frozen=True)
class Source:
    """The model to start from.

    Attributes:
        directory: Where it was read.
        model: A causal language model of transformers in fp32.
        template: With its tokenizer.
        added: The template's marks that the tokenizer didn't have before.
    """

    directory: Path
    model: Any
    template: ChatTemplate
    added: tuple[str, ...]


def load_source(config: SftConfig, run: RunDirectory) -> Source:
    """Loads the parent's model, or the one at `model_path`, in fp32 on the CPU.

    Raises:
        UserError: If there is no such model, its tokenizer lacks the template's tokens, or its context is too short.
    """
    directory = Path(config.model_path) if config.model_path else parent_artifacts(run, "model") / "model"
    model, tokenizer = load_model(directory)
    added: tuple[str, ...] = ()
    if config.template.add_tokens:
        added = _add_marks(model, tokenizer, config.seed)
    template = ChatTemplate.of(tokenizer)
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and config.data.sequence_length > context:
        raise UserError(
            f"data.sequence_length is {config.data.sequence_length}, and {directory} has a context of {context}",
            expected="at most the model's context",
            action=f"set data.sequence_length={context}, or choose a model with a longer context",
        )
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"{directory}: {len(tokenizer)} pieces and {rows} rows of embeddings",
            expected="a row for every piece",
            action="take the tokenizer that belongs to the model",
        )
    return Source(directory, model, template, added)


def _add_marks(model: Any, tokenizer: Any, seed: int) -> tuple[str, ...]:
    """Adds the marks that are missing. Their rows are drawn around the mean of the others', by the seed."""
    from tokenizers import AddedToken

    missing = tuple(mark for mark in MARKS if mark not in tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in missing], special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    return missing


def with_lora(source: Source, config: LoraConfig, seed: int) -> Any:
    """The model with frozen weights and trained low-rank updates; rows of added marks are trained too.

    Raises:
        UserError: If the model has no layers of the names that were given.
    """
    import peft

    ids = source.template.tokenizer.convert_tokens_to_ids(list(source.added))
    settings = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules or "all-linear",
        trainable_token_indices=ids or None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(source.model, settings)
        except ValueError as error:
            raise UserError(
                f"lora.target_modules {config.target_modules}: {str(error).splitlines()[0]}",
                expected=f"names of linear layers, such as {', '.join(_linear_names(source.model)[:4])}",
                action="mend the names, or leave them out: all linear layers but the output are taken then",
            ) from error


def _linear_names(model: Any) -> list[str]:
    names = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in names})


def count_flops(source: Source, convention: str, sequence_length: int) -> tuple[str, float]:
    """Model FLOPs per token, as of full training whatever the method, and the convention that was used."""
    try:
        shape = model_config(source.directory, exact=False).shape(sequence_length)
    except (UserError, KeyError):
        embeddings = {source.model.get_input_embeddings().weight, source.model.get_output_embeddings().weight}
        others = sum(parameter.numel() for parameter in source.model.parameters() if parameter not in embeddings)
        return WITHOUT_SHAPE, 6.0 * others
    return convention, flops_per_token(convention, shape)
