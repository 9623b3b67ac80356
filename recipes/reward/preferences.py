"""Pairs of answers to a prompt, of which one is better, and their files. Torch-free.

Rows that are read, as JSONL or a JSON list, plain, .gz or .xz:

    {"prompt": "..." or [messages], "chosen": "...", "rejected": "..."}      answers may be messages, or lists of one
    {"chosen": [messages], "rejected": [messages]}                           the prompt is what they have in common,
                                                                             the answers are the turns where they part
    {"conversations": [{"from", "value"}], "chosen": {"from", "value"}, "rejected": {...}}       LLaMA-Factory
    {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": "..."}         Anthropic's helpful and harmless
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.files import atomic_write
from recipes.chat.template import Message, Role
from recipes.instructions.read import Conversation, split_held_out
from recipes.instructions.rows import Row, find_files, read_rows

FORMAT = '{"prompt": "..." or [messages], "chosen": "...", "rejected": "..."}'
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Preference:
    """A prompt with the better and the worse answer.

    Attributes:
        prompt: Messages, the last of them the user's.
        chosen, rejected: The answers.
        reference: What a right answer must contain; "" where nobody says.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    reference: str = ""

    @property
    def conversation(self) -> Conversation:
        """The prompt with an empty answer."""
        return Conversation((*self.prompt, Message("assistant", "")), self.reference)


def read_preferences(paths: Sequence[str | Path]) -> tuple[list[Preference], int]:
    """Every pair of some files, in order, and how many were left out because both answers are the same.

    Raises:
        UserError: If a file is missing or damaged, or a row is malformed; it names the file and the line.
    """
    found = [_preference(row) for path in find_files(paths) for row in read_rows(path)]
    kept = [pair for pair in found if pair.chosen != pair.rejected]
    if not kept:
        raise UserError(
            f"{len(found)} pairs in {', '.join(map(str, paths))}, none with two different answers",
            expected=f"pairs such as {FORMAT}",
            action="give other files",
        )
    return kept, len(found) - len(kept)


def write_preferences(path: Path, pairs: Sequence[Preference]) -> None:
    """Writes pairs as JSONL; the file is whole or as it was."""
    rows = (json.dumps(asdict(pair), ensure_ascii=False) for pair in pairs)
    atomic_write(path, "".join(f"{row}\n" for row in rows))


def split_pairs(pairs: Sequence[Preference], fraction: float, seed: int) -> tuple[list[Preference], list[Preference]]:
    """Training and held-out pairs, by the prompt; see `split_held_out`."""
    _, held = split_held_out([pair.conversation for pair in pairs], fraction, seed)
    prompts = {conversation.prompt for conversation in held}
    return [p for p in pairs if p.prompt not in prompts], [p for p in pairs if p.prompt in prompts]


def _preference(row: Row) -> Preference:
    data = row.data
    if not isinstance(data, Mapping):
        raise row.error(f"{type(data).__name__} instead of an object", FORMAT)
    for key in ("chosen", "rejected"):
        if key not in data:
            raise row.error(f"no `{key}` among the keys {', '.join(map(str, list(data)[:8])) or '(none)'}", FORMAT)
    reference = data.get("reference", "")
    if not isinstance(reference, str):
        raise row.error(f"`reference` is {_short(reference)}", "a text")
    prompt, answers = _parts(row, data)
    if not prompt or prompt[-1].role != "user":
        raise row.error("a prompt that doesn't end with the user's turn", FORMAT)
    return Preference(prompt, *answers, reference)


def _parts(row: Row, data: Mapping[str, Any]) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """The prompt and both answers."""
    listed = next((key for key in ("prompt", "conversations") if key in data), None)
    if listed is not None:
        prompt = _messages(row, listed, data[listed], "user")
        return prompt, (_answer(row, data, "chosen"), _answer(row, data, "rejected"))
    chosen, rejected = (tuple(_whole(row, key, data[key])) for key in ("chosen", "rejected"))
    parting = next((n for n, both in enumerate(zip(chosen, rejected, strict=False)) if both[0] != both[1]), None)
    parting = min(len(chosen), len(rejected)) - 1 if parting is None else parting
    for key, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[parting].role != "assistant":
            raise row.error(f"`{key}` has no answer where the two part, and there is no `prompt`", FORMAT)
    return chosen[:parting], (chosen[parting].content, rejected[parting].content)


def _messages(row: Row, key: str, value: Any, role: Role) -> tuple[Message, ...]:
    """A text is one message of that role."""
    if isinstance(value, str):
        return (Message(role, value),)
    entries = value if isinstance(value, list) else [value]
    return tuple(_message(row, f"{key}[{number}]", entry) for number, entry in enumerate(entries))


def _message(row: Row, place: str, entry: Any) -> Message:
    if isinstance(entry, Mapping):
        role, content = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
        if role in _ROLES and isinstance(content, str):
            return Message(_ROLES[role], content)
    raise row.error(f"`{place}` is {_short(entry)}", 'a text, or {"role": "user", "content": "..."}')


def _answer(row: Row, data: Mapping[str, Any], key: str) -> str:
    messages = _messages(row, key, data[key], "assistant")
    # Some files repeat the prompt in front of the answer.
    if not messages or messages[-1].role != "assistant":
        raise row.error(f"`{key}` is {_short(data[key])}", "the assistant's answer")
    return messages[-1].content


def _whole(row: Row, key: str, value: Any) -> Iterator[Message]:
    """A whole conversation: messages, or one text with turns that begin with Human: and Assistant:."""
    if not isinstance(value, str):
        yield from _messages(row, key, value, "user")
        return
    parts = _TURN.split(value)
    if len(parts) < 3:
        raise row.error("no `prompt`", FORMAT)
    for who, text in zip(parts[1::2], parts[2::2], strict=True):
        yield Message("user" if who == "Human" else "assistant", text.strip())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
