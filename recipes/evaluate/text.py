"""Texts as the token streams that models are scored on: any text file, any model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import UserError
from kit.files import require_file
from recipes.data import Ids
from recipes.dataset import Dataset


@dataclass(frozen=True)
class Text:
    """A document.

    Attributes:
        file: Where it was read, as the recipe calls it.
        content: The text.
        text_bytes: Its length in UTF-8.
    """

    file: str
    content: str
    text_bytes: int


def read_texts(files: Sequence[str]) -> list[Text]:
    """Reads text files.

    Raises:
        UserError: If one is missing, empty, or not UTF-8; the position of the first wrong byte is named.
    """
    texts = []
    for file in files:
        data = require_file(Path(file), "a text file").read_bytes()
        try:
            content = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file}: byte {data[error.start]:#04x} at position {error.start} is not UTF-8 ({error.reason})",
                expected="UTF-8 text",
                action=f"convert the file, for example with `iconv -t utf-8`, or mend it near byte {error.start}",
            ) from None
        if not data:
            raise UserError(f"{file} is empty", expected="a text of at least one byte", action="choose another file")
        texts.append(Text(file, content, len(data)))
    return texts


def split_documents(dataset: Dataset, split: str, tokenizer: Any) -> list[str]:
    """The documents of a split as text, for models that read it with a tokenizer of their own.

    Raises:
        UserError: If the shards don't hold the text exactly, so that its bytes can't be counted.
    """
    tokens = np.asarray(dataset.tokens(split), dtype=np.int64)
    ends = np.flatnonzero(tokens == dataset.card.tokenizer.eod_id)
    documents = [tokenizer.decode(part[part != dataset.card.tokenizer.eod_id]) for part in np.split(tokens, ends + 1)]
    documents = [document for document in documents if document]
    found, expected = sum(len(document.encode()) for document in documents), dataset.card.splits[split].text_bytes
    if found != expected:
        raise UserError(
            f"{dataset.folder}: split {split} decodes to {found} bytes of text, and its card counts {expected}",
            expected="a tokenizer that gives every text back exactly",
            action="compare the models on text files instead: `text: [FILE]`",
        )
    return documents


def text_stream(documents: Sequence[str], model: Any, tokenizer: Any) -> Ids:
    """begin + document + end + document + ... + end, in a model's own tokens.

    `begin` is the token that the model's configuration starts a text with, else its end token; one document has no end
    token behind it, for nothing follows.

    Raises:
        UserError: If the model names neither.
    """
    begin, end = begin_id(model, tokenizer), end_id(model, tokenizer)
    ids = [tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"] for document in documents]
    parts = [part for document in ids for part in (document, [end])]
    stream = np.concatenate([np.asarray(part, dtype=np.int64) for part in ([begin], *parts)])
    return stream if len(documents) > 1 else stream[:-1]


def begin_id(model: Any, tokenizer: Any) -> int:
    """The token in front of a text."""
    candidates = (model.config.bos_token_id, tokenizer.bos_token_id)
    return next((int(token) for token in candidates if token is not None), end_id(model, tokenizer))


def end_id(model: Any, tokenizer: Any) -> int:
    """The token behind a text.

    Raises:
        UserError: If there is none.
    """
    named = model.config.eos_token_id
    candidates = (*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id)
    found = next((int(token) for token in candidates if token is not None), None)
    if found is None:
        raise UserError(
            f"{model.config._name_or_path}: neither a beginning nor an end token",
            expected="eos_token_id in config.json, or eos_token in tokenizer_config.json",
            action="add it there: the first token of a text is predicted from it",
        )
    return found
