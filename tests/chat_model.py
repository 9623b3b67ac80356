"""A tiny chat model for tests: a tokenizer with the template's reserved tokens, and a Llama with drawn weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import real_text
import sentencepiece

from data_prep import huggingface
from data_prep.config import TokenizerConfig
from data_prep.train_tokenizer import END_ID, PAD_ID, train
from recipes.model.config import ModelConfig
from recipes.model.families import SpecialIds
from recipes.model.huggingface import write_directory
from recipes.model.init import first_tensor

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "recipes" / "instructions" / "sample" / "demo.jsonl"
VOCAB = 512
SIZES: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 64, "init_std": 0.08}


@cache
def _sentencepiece_model() -> bytes:
    lines = [line for text in real_text.documents() for line in text.splitlines() if line.strip()]
    lines += DEMO.read_text(encoding="utf-8").splitlines() * 3
    return train(TokenizerConfig(kind="bpe", vocab_size=VOCAB), iter(lines)).model


def write_tokenizer(folder: Path) -> Path:
    """The files that data_prep writes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(_sentencepiece_model())
    processor = sentencepiece.SentencePieceProcessor(model_proto=_sentencepiece_model())
    huggingface.write(huggingface.convert(processor, "bpe"), folder)
    return folder


def write_model(directory: Path, context: int = 96, seed: int = 1, **sizes: Any) -> Path:
    """A model directory as pretrain exports it, with the weights that a seed draws."""
    config = ModelConfig(**{**SIZES, "vocab": VOCAB, **sizes})
    tokenizer = write_tokenizer(directory.parent / f"{directory.name}-tokenizer")
    tensors = ((name, first_tensor(config, seed, name)) for name in config.tensor_shapes())
    write_directory(directory, config, context, SpecialIds(END_ID, PAD_ID), tensors, tokenizer)
    return directory


def write_model_without_marks(directory: Path) -> Path:
    """A model whose tokenizer knows no conversations: GPT-2's kind, bytes and a few merges, tied embeddings."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(real_text.documents(4), vocab_size=400, special_tokens=["<|endoftext|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    set_seed(1)
    size = {"n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **size, **ends)
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
