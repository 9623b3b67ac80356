"""A conversation with a model in the terminal's terms: what it is asked, what it remembers, what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from recipes.chat.generation import stream_ids
from recipes.chat.streaming import TextStream
from recipes.chat.template import MARKS, ChatTemplate, Message


@dataclass(frozen=True)
class Decoding:
    """How an answer is chosen; temperature 0 takes the likeliest token every time."""

    temperature: float
    top_k: int
    new_tokens: int
    seed: int


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        prompt: What the user wrote.
        answer: What the model wrote.
        tokens: How many tokens that is.
        seconds: From the question to the answer's end.
        forgotten: How many of the oldest turns the model did not see, because the context is full.
    """

    prompt: str
    answer: str
    tokens: int
    seconds: float
    forgotten: int

    def record(self) -> dict[str, Any]:
        """The turn as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Format:
    """How a conversation becomes ids.

    Attributes:
        chat: Whether the model knows turns; else it continues each text by itself.
        encode: Messages to the ids after which the model speaks.
        stop_ids: What ends an answer.
        pad_id: Fills short rows.
    """

    chat: bool
    encode: Callable[[list[Message]], list[int]]
    stop_ids: tuple[int, ...]
    pad_id: int


class Dialogue:
    """A conversation in progress; `ask` adds a turn."""

    def __init__(self, model: Any, tokenizer: Any, decoding: Decoding, system: str = "") -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._decoding = decoding
        self.format = choose_format(model, tokenizer)
        if system and not self.format.chat:
            raise UserError(
                f"--system, and {tokenizer.name_or_path} has no chat template: it only continues a text",
                expected="a model that was fine-tuned on conversations, such as last:sft or last:rlhf",
                action="leave --system out, or choose such a model",
            )
        self._system = [Message("system", system)] if system else []
        self._messages: list[Message] = []
        device = next(model.parameters()).device
        self._generator = torch.Generator(device=device).manual_seed(decoding.seed)
        self.turns: list[Turn] = []
        self.forgotten = 0

    def ask(self, prompt: str) -> Generator[str]:
        """The answer, piece by piece as the model writes it; afterwards it stands in `turns`.

        An answer that the reader breaks off is kept as far as it came.

        Raises:
            UserError: If the prompt alone fills the model's context.
        """
        start = time.monotonic()
        ids, self._messages, self.forgotten = self._fit([*self._messages, Message("user", prompt)])
        stream, tokens = TextStream(self._tokenizer), 0
        steps = stream_ids(
            self._model,
            [ids],
            stop_ids=self.format.stop_ids,
            pad_id=self.format.pad_id,
            new_tokens=self._decoding.new_tokens,
            temperature=self._decoding.temperature,
            top_k=self._decoding.top_k,
            generator=self._generator,
        )
        try:
            for (token,) in steps:
                assert token is not None, "a single row is open until the last step"
                if token not in self.format.stop_ids:
                    tokens += 1
                    yield stream.add(token)
            yield stream.end()
        finally:
            answer = stream.text
            self._messages.append(Message("assistant", answer))
            if not self.format.chat:
                self._messages = []
            seconds = round(time.monotonic() - start, 3)
            self.turns.append(Turn(prompt, answer, tokens, seconds, self.forgotten))

    def _fit(self, messages: list[Message]) -> tuple[list[int], list[Message], int]:
        """The ids of as much of the conversation as leaves room for an answer, those messages, and turns left out."""
        context = getattr(self._model.config, "max_position_embeddings", None)
        forgotten = 0
        while True:
            ids = self.format.encode([*self._system, *messages])
            room = self._decoding.new_tokens if context is None else int(context) - len(ids)
            if room >= self._decoding.new_tokens or len(messages) == 1:
                break
            messages, forgotten = messages[2:], forgotten + 1
        if room < 1:
            raise UserError(
                f"a message of {len(ids)} tokens with its marks, and the model's context has {context}",
                expected=f"at most {int(context or 0) - 1} tokens, so that an answer has room",
                action="write a shorter message" + (", or a shorter --system" if self._system else ""),
            )
        return ids, messages, forgotten


def choose_format(model: Any, tokenizer: Any) -> Format:
    """The kit's chat template where the tokenizer has it, else the model's own, else plain continuation."""
    if not getattr(tokenizer, "chat_template", None):
        return _plain(model, tokenizer)
    if set(MARKS) <= set(tokenizer.get_vocab()):
        template = ChatTemplate.of(tokenizer)
        return Format(True, template.prompt_ids, template.stop_ids, template.pad_id)
    return _own(model, tokenizer)


def _own(model: Any, tokenizer: Any) -> Format:
    def encode(messages: list[Message]) -> list[int]:
        turns = [asdict(message) for message in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    stops = _end_ids(model, tokenizer)
    return Format(True, encode, stops, stops[0])


def _plain(model: Any, tokenizer: Any) -> Format:
    stops = _end_ids(model, tokenizer)
    begin = model.config.bos_token_id
    first = stops[0] if begin is None else int(begin)

    def encode(messages: list[Message]) -> list[int]:
        return [first, *tokenizer(messages[-1].content, add_special_tokens=False)["input_ids"]]

    return Format(False, encode, stops, stops[0])


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    found: list[int] = []
    for named in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        found += named if isinstance(named, list) else [] if named is None else [named]
    if not found:
        raise UserError(
            f"{Path(tokenizer.name_or_path)}: no end token",
            expected="eos_token_id in config.json or generation_config.json",
            action="name there the token that ends a text",
        )
    return tuple(dict.fromkeys(int(token) for token in found))
