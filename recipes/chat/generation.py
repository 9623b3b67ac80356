"""Answers of a causal language model: batched decoding with a key-value cache, the same for the same seed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from kit.files import require_file
from recipes.chat.template import ChatTemplate, Message


def load_model(
    directory: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """A Hugging Face causal language model in evaluation mode, and its tokenizer, both from a local directory.

    Raises:
        UserError: If the directory holds no such model or no tokenizer.
    """
    # Imported here: it takes seconds.
    from transformers import AutoModelForCausalLM

    directory = Path(directory)
    require_file(directory / "config.json", "the config.json of a Hugging Face model directory")
    try:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{directory}: {_first_line(error)}",
            expected="a complete Hugging Face directory of a causal language model",
            action="choose another model, or export or copy it again",
        ) from error
    return model.to(device).eval(), load_tokenizer(directory)


def load_tokenizer(directory: str | Path) -> Any:
    """The tokenizer of a local Hugging Face directory.

    Raises:
        UserError: If there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(Path(directory), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{directory}: {_first_line(error)}",
            expected="the tokenizer's files beside the model: tokenizer.json and tokenizer_config.json",
            action="copy them there from where the model comes from",
        ) from error


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    *,
    new_tokens: int,
    temperature: float,
    top_k: int = 0,
    seed: int,
    batch_samples: int = 32,
) -> list[str]:
    """One answer for every prompt, in their order.

    Args:
        model: A bare Hugging Face causal language model; it is left in the mode (train or eval) that it is in now.
        tokenizer: Its tokenizer.
        prompts: Conversations that end before the answer.
        new_tokens: Longest answer; a short context shortens it, to nothing where a prompt fills it.
        temperature: 0 takes the likeliest token every time.
        top_k: Only the likeliest k tokens are drawn; 0 for all.
        seed: Same seed, prompts and batch_samples: same answers. torch's global generators aren't touched.
        batch_samples: How many prompts are answered at once.

    Raises:
        UserError: If the tokenizer lacks the template's tokens.
    """
    template = ChatTemplate.of(tokenizer)
    ids = [template.prompt_ids(prompt) for prompt in prompts]
    generator = torch.Generator(device=_device(model)).manual_seed(seed)
    # Rows of like length share a batch, so that little is padding.
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    answers = [""] * len(ids)
    for start in range(0, len(order), batch_samples):
        chosen = order[start : start + batch_samples]
        rows = generate_ids(
            model,
            [ids[index] for index in chosen],
            stop_ids=template.stop_ids,
            pad_id=template.pad_id,
            new_tokens=new_tokens,
            temperature=temperature,
            top_k=top_k,
            generator=generator,
        )
        for index, row in zip(chosen, rows, strict=True):
            answers[index] = template.text_of(row)
    return answers


def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    new_tokens: int,
    temperature: float,
    top_k: int = 0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """The new ids of every row of one batch; a row that stopped ends with the stop id that ended it."""
    rows: list[list[int]] = [[] for _ in prompts]
    steps = stream_ids(
        model,
        prompts,
        stop_ids=stop_ids,
        pad_id=pad_id,
        new_tokens=new_tokens,
        temperature=temperature,
        top_k=top_k,
        generator=generator,
    )
    for step in steps:
        for row, token in zip(rows, step, strict=True):
            if token is not None:
                row.append(token)
    return rows


def stream_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    new_tokens: int,
    temperature: float,
    top_k: int = 0,
    generator: torch.Generator | None = None,
) -> Iterator[list[int | None]]:
    """Decodes one batch and yields every row's next id as it is chosen; None for a row that has ended.

    Prompts are padded on the left, and every row counts its positions from its own first token, so a row's answer
    doesn't depend on its neighbours (but for rounding). Ends when every row has stopped, has `new_tokens`, or has
    filled the model's context.
    """
    if not prompts:
        return
    room = _context(model)
    limits = [new_tokens if room is None else max(0, min(new_tokens, room - len(prompt))) for prompt in prompts]
    open_rows = [limit > 0 for limit in limits]
    device, stops = _device(model), frozenset(stop_ids)
    was_training = model.training
    model.eval()
    try:
        tokens, mask = _left_padded(prompts, pad_id, device)
        positions, cache, keep = (mask.cumsum(1) - 1).clamp(min=0), None, _last_logits_only(model)
        step = 0
        while any(open_rows):
            with torch.no_grad():
                output = model(
                    input_ids=tokens,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    **keep,
                )
                cache, chosen = output.past_key_values, _choose(output.logits[:, -1], temperature, top_k, generator)
            step += 1
            ids = chosen.tolist()
            yield [token if is_open else None for token, is_open in zip(ids, open_rows, strict=True)]
            open_rows = [
                is_open and token not in stops and step < limit
                for token, is_open, limit in zip(ids, open_rows, limits, strict=True)
            ]
            alive = torch.tensor(open_rows, device=device)
            tokens = torch.where(alive, chosen, pad_id)[:, None]
            mask = torch.cat((mask, alive[:, None].to(mask.dtype)), dim=1)
            # A row that has ended stays where it is: its places may not run out of the context.
            positions = positions[:, -1:] + alive[:, None].to(positions.dtype)
    finally:
        model.train(was_training)


def _choose(logits: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator | None) -> torch.Tensor:
    """The next ids [rows] from logits [rows, vocab]."""
    logits = logits.float()
    if temperature <= 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        lowest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, float("-inf"))
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


def _left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        mask[row, longest - len(prompt) :] = 1
    return tokens.to(device), mask.to(device)


def _context(model: Any) -> int | None:
    room = getattr(model.config, "max_position_embeddings", None)
    return None if room is None else int(room)


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _last_logits_only(model: Any) -> dict[str, int]:
    # PEFT's wrapper takes anything and hands it on; what it wraps has the names.
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(bare.forward).parameters else {}


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
