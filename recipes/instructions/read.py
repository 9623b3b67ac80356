"""Conversations from instruction files: Alpaca and messages, JSONL or a JSON list. Torch-free."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kit.errors import UserError
from recipes.chat.template import Message, Role
from recipes.instructions.rows import Row, find_files, read_rows

Format = Literal["auto", "alpaca", "messages"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_FORMATS = (
    'Alpaca {"instruction": "...", "input": "...", "output": "..."} or '
    'messages {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
)


@dataclass(frozen=True)
class Conversation:
    """A conversation whose last message is the assistant's answer.

    Attributes:
        messages: System (if any), then user and assistant in turn; the last answer is "" where only a prompt was given.
        reference: What a right answer must contain, for rules and measurements; "" where the data doesn't say.
        id: "file:line".
    """

    messages: tuple[Message, ...]
    reference: str = ""
    id: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last message's text."""
        return self.messages[-1].content

    @property
    def prompt_text(self) -> str:
        """The prompt as one text, for hashes and tables."""
        turns = [f"{message.role}: {message.content}" for message in self.prompt]
        return self.prompt[0].content if len(turns) == 1 else "\n".join(turns)


def read_instructions(paths: Sequence[str | Path], format: Format = "auto") -> list[Conversation]:
    """Every conversation of some files, in their order.

    `reference` and `system` are read where a row has them, and Alpaca's `history`; other keys are ignored.

    Raises:
        UserError: If a file is missing or damaged, or a row is malformed; it names the file and the line.
    """
    assert format in get_args(Format), f"no format {format}"
    conversations = [_conversation(row, format) for path in find_files(paths) for row in read_rows(path)]
    if not conversations:
        raise UserError(
            f"no row in {', '.join(map(str, paths))}",
            expected=f"at least one conversation: {_FORMATS}",
            action="add some",
        )
    return conversations


def split_held_out(
    conversations: Sequence[Conversation], fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Training and held-out conversations, each in the order of the files.

    The held-out ones have the prompts with the smallest hashes, at least one: equal prompts stay on one side, and a
    further row moves hardly any other.

    Raises:
        UserError: If there aren't two different prompts.
    """
    marks = {conversation.prompt_text: _hash(seed, conversation.prompt_text) for conversation in conversations}
    if len(marks) < 2:
        raise UserError(
            f"{len(conversations)} conversations with {len(marks)} different prompts",
            expected="at least two: one to train on, one to hold out",
            action="give more instruction data",
        )
    count = min(len(marks) - 1, max(1, round(fraction * len(marks))))
    held = set(sorted(marks, key=lambda text: marks[text])[:count])
    train = [conversation for conversation in conversations if conversation.prompt_text not in held]
    return train, [conversation for conversation in conversations if conversation.prompt_text in held]


def _hash(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def _conversation(row: Row, format: Format) -> Conversation:
    if not isinstance(row.data, Mapping):
        raise row.error(f"{type(row.data).__name__} instead of an object", _FORMATS)
    listed = next((key for key in ("messages", "conversations") if key in row.data), None)
    if format != "alpaca" and listed:
        messages = list(_messages(row, listed))
    elif format != "messages" and "instruction" in row.data:
        messages = list(_alpaca(row))
    else:
        keys = ", ".join(map(str, list(row.data)[:8])) or "none"
        wanted = _FORMATS if format == "auto" else f"format {format}, as data.format says: {_FORMATS}"
        raise row.error(f"keys {keys}", wanted)
    if messages[-1].role == "user":
        messages.append(Message("assistant", ""))
    _check_turns(row, messages)
    return Conversation(tuple(messages), _text(row, row.data, "reference", ""), row.place)


def _messages(row: Row, key: str) -> Iterator[Message]:
    entries = row.data[key]
    if not isinstance(entries, list) or not entries:
        raise row.error(f"`{key}` is {_short(entries)}", "a list of messages that is not empty")
    if isinstance(row.data.get("system"), str) and row.data["system"]:
        yield Message("system", _text(row, row.data, "system"))
    for number, entry in enumerate(entries):
        where = f"{key}[{number}]"
        if not isinstance(entry, Mapping):
            raise row.error(f"`{where}` is {_short(entry)}", '{"role": "user", "content": "..."}')
        role, content = ("role", "content") if "role" in entry or "from" not in entry else ("from", "value")
        if entry.get(role) not in _ROLES:
            raise row.error(f"`{where}.{role}` is {_short(entry.get(role))}", "system, user or assistant")
        yield Message(_ROLES[entry[role]], _text(row, entry, content, place=where))


def _alpaca(row: Row) -> Iterator[Message]:
    data = row.data
    if system := _text(row, data, "system", ""):
        yield Message("system", system)
    for number, pair in enumerate(data.get("history") or []):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise row.error(f"`history[{number}]` is {_short(pair)}", "a list of two texts: question, answer")
        yield Message("user", pair[0])
        yield Message("assistant", pair[1])
    instruction, context = _text(row, data, "instruction"), _text(row, data, "input", "")
    if not instruction.strip() and not context.strip():
        raise row.error("`instruction` is empty", "a text")
    yield Message("user", f"{instruction}\n{context}" if context else instruction)
    yield Message("assistant", _text(row, data, "output"))


def _text(row: Row, data: Mapping[str, Any], key: str, default: str | None = None, place: str = "") -> str:
    value = data.get(key)
    if value is None and default is not None:
        return default
    name = f"{place}.{key}" if place else key
    if not isinstance(value, str):
        raise row.error(f"`{name}` is {_short(value)}" if key in data else f"`{name}` is missing", "a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise row.error(
            f"`{name}`: {error.reason} at character {error.start}", "text without half characters"
        ) from None
    return value


def _check_turns(row: Row, messages: Sequence[Message]) -> None:
    turns = [message.role for message in messages]
    spoken = turns[1:] if turns[0] == "system" else turns
    if not spoken or len(spoken) % 2 or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(spoken)):
        raise row.error(f"turns {', '.join(turns)}", "system if any, then user and assistant in turn")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
