"""What is measured of one loaded model, held-out text first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from recipes.chat.generation import load_model, load_tokenizer
from recipes.data import Ids
from recipes.dataset import Dataset
from recipes.evaluate.config import EvaluateConfig, SamplesConfig
from recipes.evaluate.score import Score, evaluation_stream, score_model
from recipes.evaluate.text import Text, begin_id, split_documents, text_stream
from recipes.model.tokenizer import check_same_tokenizer

LONGEST_WINDOW = 2048
LARGEST_LOGITS = 2**27
"""Numbers in one batch of logits: 512 MiB of fp32."""


@dataclass(frozen=True)
class HeldOut:
    """A dataset's held-out split: its stream in the tokens of the shards, and its length in bytes."""

    dataset: Dataset
    split: str
    stream: Ids = field(repr=False)
    text_bytes: int

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> HeldOut:
        """Opens a split."""
        stream = evaluation_stream(dataset.tokens(split), dataset.card.tokenizer.eod_id)
        return cls(dataset, split, stream, dataset.card.splits[split].text_bytes)

    def stream_for(self, model: Any, tokenizer: Any, directory: Path, read_anew: bool) -> Ids:
        """The split in a model's tokens: the shards' own, unless models may differ and this one does."""
        if read_anew and not _same(self.dataset.tokenizer, directory):
            documents = split_documents(self.dataset, self.split, load_tokenizer(self.dataset.tokenizer))
            return text_stream(documents, model, tokenizer)
        return self.stream


class Measured:
    """A loaded model and how it is scored."""

    def __init__(self, config: EvaluateConfig, directory: Path, device: torch.device) -> None:
        self.directory = directory
        self.model, self.tokenizer = load_model(directory, device)
        self._config = config
        self.window = _window(config, self.model, directory)

    def score(self, stream: Ids) -> Score:
        """Negative log likelihood of a stream's tokens but the first.

        Raises:
            UserError: If the model's vocabulary is smaller than the stream's tokens need.
        """
        vocab = self.model.get_input_embeddings().weight.shape[0]
        if int(stream.max()) >= vocab:
            raise UserError(
                f"{self.directory}: a vocabulary of {vocab}, and the text has token {int(stream.max())}",
                expected="a model trained with the tokenizer that made the shards",
                action="choose parents that belong together",
            )
        rows = max(1, min(self._config.batch_samples, LARGEST_LOGITS // (self.window * vocab)))
        return score_model(
            lambda tokens: self.model(tokens, use_cache=False).logits, stream, self.window, rows, self.model.device
        )

    def score_texts(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """Bits per byte and perplexity of text files, and whether the tokenizer gives the text back exactly."""
        rows = []
        for text in texts:
            stream = text_stream([text.content], self.model, self.tokenizer)
            score = self.score(stream)
            rows.append(
                {
                    "file": text.file,
                    "text_bytes": text.text_bytes,
                    "tokens": score.tokens,
                    "bits_per_byte": score.bits_per_byte(text.text_bytes),
                    "perplexity": score.perplexity,
                    "text_recovered": self.tokenizer.decode(stream[1:]) == text.content,
                }
            )
        return rows

    def write_texts(self, config: SamplesConfig) -> list[dict[str, Any]]:
        """Texts that the model writes by itself."""
        torch.manual_seed(config.seed)
        texts = []
        for prompt in config.prompts:
            # A document follows an end token: that is where the model has learned to begin.
            begin = [begin_id(self.model, self.tokenizer), *self.tokenizer.encode(prompt, add_special_tokens=False)]
            room = int(getattr(self.model.config, "max_position_embeddings", LONGEST_WINDOW)) - len(begin)
            tokens = torch.tensor([begin], device=self.model.device)
            written = self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=max(1, min(config.new_tokens, room)),
                do_sample=True,
                temperature=config.temperature,
                top_k=config.top_k,
            )
            text = self.tokenizer.decode(written[0][len(begin) :], skip_special_tokens=True)
            texts.append({"prompt": prompt, "text": text, "temperature": config.temperature, "top_k": config.top_k})
        return texts


def check_tokenizers(directories: Sequence[Path], names: Sequence[str], dataset: Dataset | None) -> None:
    """Refuses models that number pieces in another way than the data, or than the first model.

    Raises:
        UserError: Naming the two, and how to compare all the same.
    """
    for directory, name in zip(directories, names, strict=True):
        parent = dataset.tokenizer if dataset else directories[0]
        try:
            check_same_tokenizer(parent, directory, f"model `{name}`")
        except UserError as error:
            raise UserError(
                error.found,
                expected=error.expected,
                action=f"{error.action}; or compare them by bits per byte alone: unequal_tokenizers=compare_bytes",
            ) from None


def _same(one: Path, other: Path) -> bool:
    try:
        check_same_tokenizer(one, other, "")
    except UserError:
        return False
    return True


def _window(config: EvaluateConfig, model: Any, directory: Path) -> int:
    context = int(getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW)
    wanted = config.window_tokens or min(context, LONGEST_WINDOW)
    if wanted > context:
        raise UserError(
            f"window_tokens {wanted}, and {directory} has a context of {context}",
            expected=f"at most {context}",
            action="leave window_tokens out, or set it lower",
        )
    return wanted
