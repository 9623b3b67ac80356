"""Whether two model directories have the same tokenizer. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.files import sha256_file

FILE = "tokenizer.json"
_SENTENCEPIECE = "tokenizer.model"
_DECIDE_IDS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "decoder")
"""The rest of tokenizer.json is what a library keeps of its last use, and what it would put around a text."""


def check_same_tokenizer(parent: Path, child: Path, what: str) -> None:
    """Refuses two models that don't number the same pieces alike.

    Args:
        parent: Model directory that the work started from.
        child: Model directory that is to fit it.
        what: What the child is, in words: "the reward model".

    Raises:
        UserError: If one has no tokenizer, or they differ.
    """
    one, other = _content(parent), _content(child)
    if one != other:
        raise UserError(
            f"{what} in {child} has another tokenizer than {parent}{_difference(one, other)}",
            expected=f"the same {FILE}: token ids mean the same pieces in both",
            action="choose models that descend from the same data_prep run",
        )


def _content(directory: Path) -> Any:
    path = directory / FILE
    if path.is_file():
        try:
            data = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(
                f"{path} is damaged: {error}", expected="a tokenizer of Hugging Face", action="copy it again"
            ) from None
        return {key: data.get(key) for key in _DECIDE_IDS}
    if (directory / _SENTENCEPIECE).is_file():
        return {"sentencepiece": sha256_file(directory / _SENTENCEPIECE)}
    raise UserError(
        f"{directory}: neither {FILE} nor {_SENTENCEPIECE}",
        expected="the tokenizer's files beside the model",
        action="copy them there from where the model comes from",
    )


def _difference(one: Any, other: Any) -> str:
    sizes = [len(((data.get("model") or {}).get("vocab")) or ()) for data in (one, other)]
    if sizes[0] != sizes[1]:
        return f": {sizes[1]} pieces against {sizes[0]}"
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return f": they differ in {', '.join(keys)}"
