"""The evaluate stage: an exported model -> perplexity, bits per byte and sample texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kit.errors import UserError
from kit.files import atomic_write, require_file
from kit.run.directory import RunDirectory
from recipes.data import Ids
from recipes.dataset import open_dataset, parent_artifacts
from recipes.distributed.processes import Processes, join
from recipes.evaluate.config import EvaluateConfig, SamplesConfig
from recipes.evaluate.score import CONVENTION, Score, evaluation_stream, score_model, score_unigram


def run(config: EvaluateConfig, run: RunDirectory) -> None:
    """Scores the model, its first weights (where exported) and a unigram model, and lets it write.

    Raises:
        UserError: If the model's vocabulary isn't the data's, or there is more than one process.
    """
    models, dataset = parent_artifacts(run, "model"), open_dataset(run)
    processes = join(run.target_path)
    if processes.world_size > 1:
        raise UserError(
            f"stage evaluate in a job of {processes.world_size} processes",
            expected="one process, which uses all threads",
            action="start it with one process",
        )
    tokenizer_card = dataset.card.tokenizer
    stream = evaluation_stream(dataset.tokens(config.split), tokenizer_card.eod_id)
    text_bytes = dataset.card.splits[config.split].text_bytes
    unigram = score_unigram(dataset.tokens("train"), stream, tokenizer_card.vocab_size)
    model, trained = _score(config, models / "model", stream, tokenizer_card.vocab_size, processes)
    result: dict[str, Any] = {"split": config.split, "tokens": trained.tokens, "text_bytes": text_bytes}
    result |= _named("", trained, text_bytes) | _named("_unigram", unigram, text_bytes)
    if (models / "untrained").is_dir():
        _, untrained = _score(config, models / "untrained", stream, tokenizer_card.vocab_size, processes)
        result |= _named("_untrained", untrained, text_bytes)
    result |= {"convention": CONVENTION, "samples": _write_texts(config.samples, model, models / "model")}
    atomic_write(run.artifacts / "evaluation.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in result.items() if isinstance(value, float)}), flush=True)


def _named(suffix: str, score: Score, text_bytes: int) -> dict[str, float]:
    return {f"bits_per_byte{suffix}": score.bits_per_byte(text_bytes), f"perplexity{suffix}": score.perplexity}


def _score(config: EvaluateConfig, directory: Path, stream: Ids, vocab: int, processes: Processes) -> tuple[Any, Score]:
    require_file(directory / "config.json", "the config.json of an exported model")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval().to(processes.device)
    if model.config.vocab_size < vocab:
        raise UserError(
            f"{directory}: a vocabulary of {model.config.vocab_size}, and the shards' tokenizer has {vocab}",
            expected="a model trained with the tokenizer that made the shards",
            action="choose parents that belong together",
        )
    length = int(model.config.max_position_embeddings)
    score = score_model(
        lambda tokens: model(tokens, use_cache=False).logits, stream, length, config.batch_samples, processes.device
    )
    return model, score


def _write_texts(config: SamplesConfig, model: Any, directory: Path) -> list[dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(config.seed)
    texts = []
    for prompt in config.prompts:
        # A document follows an end token: that is where the model has learned to begin.
        begin = [model.config.eos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
        room = int(model.config.max_position_embeddings) - len(begin)
        tokens = torch.tensor([begin], device=model.device)
        written = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max(1, min(config.new_tokens, room)),
            do_sample=True,
            temperature=config.temperature,
            top_k=config.top_k,
        )
        text = tokenizer.decode(written[0][len(begin) :], skip_special_tokens=True)
        texts.append({"prompt": prompt, "text": text, "temperature": config.temperature, "top_k": config.top_k})
    return texts
