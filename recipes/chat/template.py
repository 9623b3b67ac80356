"""How a conversation becomes token ids. Torch-free.

A conversation is one leading end-of-text token, then every message as its role's mark, its text and `<|end|>`:

    </s><|user|>What is HTTP 404?<|end|><|assistant|>Not Found.<|end|>

The marks are single ids of the vocabulary. The text of a message is never searched for them: `<|end|>` written by a
user stays the characters that it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kit.errors import UserError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
STOP = "<|end|>"
MARKS = (*(f"<|{role}|>" for role in ROLES), STOP)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class ChatTemplate:
    """The template with the ids of one tokenizer; `of` makes one.

    Attributes:
        tokenizer: A Hugging Face tokenizer.
        begin_id: Stands once before everything: documents end with it, so a text begins after it.
        role_ids: The mark of every role.
        stop_id: `<|end|>`, the end of every message.
    """

    tokenizer: Any
    begin_id: int
    role_ids: dict[str, int]
    stop_id: int

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTemplate:
        """The template for a Hugging Face tokenizer.

        Raises:
            UserError: If the tokenizer lacks one of the marks, or has no end-of-text token.
        """
        known = set(tokenizer.get_vocab())
        missing = [mark for mark in MARKS if mark not in known]
        name = tokenizer.name_or_path or "the tokenizer"
        if missing:
            raise UserError(
                f"{name}: a vocabulary without {' '.join(missing)}",
                expected=f"the chat template's reserved tokens, each with an id of its own: {' '.join(MARKS)}",
                action="take a model whose tokenizer data_prep made, or let sft add them: template.add_tokens=true",
            )
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{name}: no end-of-text token",
                expected="an eos_token in tokenizer_config.json: every conversation begins with it",
                action="name the token that ends a document there",
            )
        ids = dict(zip(MARKS, tokenizer.convert_tokens_to_ids(list(MARKS)), strict=True))
        return cls(tokenizer, int(tokenizer.eos_token_id), {role: ids[f"<|{role}|>"] for role in ROLES}, ids[STOP])

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer."""
        return (self.stop_id, self.begin_id)

    @property
    def pad_id(self) -> int:
        """What fills up short rows; it is never attended to or counted."""
        pad = self.tokenizer.pad_token_id
        return self.begin_id if pad is None else int(pad)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation up to and with the mark after which the assistant speaks."""
        return [*self.encode(messages)[0], self.role_ids["assistant"]]

    def encode(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """The ids of a conversation, and which of them are counted: the assistant's texts and the ends of these."""
        return next(iter(self.encode_all([messages])))

    def encode_all(self, conversations: Sequence[Sequence[Message]]) -> Iterator[tuple[list[int], list[bool]]]:
        """The same of many conversations; faster."""
        texts = iter(self._texts([message.content for messages in conversations for message in messages]))
        for messages in conversations:
            ids, counted = [self.begin_id], [False]
            for message in messages:
                text, answer = next(texts), message.role == "assistant"
                ids += [self.role_ids[message.role], *text, self.stop_id]
                counted += [False, *([answer] * (len(text) + 1))]
            yield ids, counted

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, without marks."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def jinja(self) -> str:
        """The same template for `tokenizer.apply_chat_template`.

        It writes text that is then searched for marks, so a message that holds a special token is refused there.
        """
        special = sorted({*self.tokenizer.all_special_tokens, *MARKS})
        return _JINJA.replace("SPECIAL", json.dumps(special)).replace("STOP", STOP)

    def _texts(self, contents: list[str]) -> list[list[int]]:
        if not contents:
            return []
        encoded: list[list[int]] = self.tokenizer(contents, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return encoded


_JINJA = (
    "{{ eos_token }}"
    "{% for message in messages %}"
    "{% for token in SPECIAL %}{% if token in message['content'] %}"
    "{{ raise_exception('a message holds the special token ' + token) }}"
    "{% endif %}{% endfor %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + 'STOP' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
