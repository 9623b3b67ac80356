"""The tuned model as a Hugging Face directory with tokenizer and chat template, and the proof that it is the same."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from kit.errors import RunFailure
from kit.files import atomic_write, disk_full_as_failure, sync_folder
from recipes.chat.template import ChatTemplate

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
LARGEST_MERGE_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.5}
"""Logits of the merged model against those with the adapter. bf16 keeps 8 bits, so there only gross errors show."""


def write_model(directory: Path, model: Any, template: ChatTemplate, source: Path, *, tokens_added: bool) -> None:
    """Writes a complete model directory; it gets its name when it is complete, and replaces one that is there.

    The tokenizer's files are the source's, byte for byte, unless tokens were added.

    Raises:
        RunFailure: If the disk is full.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_full_as_failure(partial):
            partial.mkdir(parents=True)
            _write_weights(partial, model, template)
            _keep_config(partial / "config.json", source / "config.json")
            _write_tokenizer(partial, template, source, tokens_added=tokens_added)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(partial, directory)
    sync_folder(directory.parent)


def _write_weights(folder: Path, model: Any, template: ChatTemplate) -> None:
    from transformers import GenerationConfig

    # Whoever generates with this directory stops where an answer ends.
    model.generation_config = GenerationConfig(
        bos_token_id=template.begin_id, eos_token_id=list(template.stop_ids), pad_token_id=template.pad_id
    )
    model.save_pretrained(folder, max_shard_size="1000GB")


def _keep_config(written: Path, source: Path) -> None:
    """Keys that this version of transformers no longer writes stay, for older readers; what it writes wins."""
    former, now = (json.loads(path.read_text(encoding="utf-8")) for path in (source, written))
    merged = {**former, **now}
    if "torch_dtype" in merged:
        merged["torch_dtype"] = now["dtype"]
    atomic_write(written, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")


def _write_tokenizer(folder: Path, template: ChatTemplate, source: Path, *, tokens_added: bool) -> None:
    if tokens_added:
        template.tokenizer.save_pretrained(folder)
    else:
        for path in sorted(source.iterdir()):
            if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in TOKENIZER_FILES):
                shutil.copyfile(path, folder / path.name)
    _forget_former_template(folder / "tokenizer_config.json")
    atomic_write(folder / "chat_template.jinja", template.jinja())


def _forget_former_template(path: Path) -> None:
    if path.is_file() and "chat_template" in (data := json.loads(path.read_text(encoding="utf-8"))):
        del data["chat_template"]
        atomic_write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def merge_adapter(model: Any, tokens: torch.Tensor, logits: torch.Tensor, dtype: torch.dtype) -> tuple[Any, float]:
    """Merges a LoRA adapter into the weights, in place.

    Args:
        model: PEFT's model.
        tokens: [samples, length], to compare with.
        logits: The model's for these tokens, with the adapter beside the weights.
        dtype: What the logits were computed in.

    Returns:
        The plain model, and the largest difference of its logits to the adapter's.

    Raises:
        RunFailure: If they differ by more than rounding explains.
    """
    merged = model.merge_and_unload()
    difference = largest_difference(merged, tokens, logits)
    limit = LARGEST_MERGE_DIFFERENCE[dtype]
    if not difference <= limit:
        raise RunFailure(
            f"the merged model's logits differ from the adapter's by up to {difference:.3g}",
            expected=f"at most {limit:g}",
            action="use artifacts/adapter beside the parent's model, and report this with the run's config.yaml",
        )
    return merged, difference


@torch.no_grad()
def largest_difference(model: Any, tokens: torch.Tensor, logits: torch.Tensor) -> float:
    """The largest difference of a model's logits to given ones [samples, length, vocab], in fp32 on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    mine = model(input_ids=tokens.to(device), use_cache=False).logits.float().cpu()
    return float((mine - logits).abs().max())
