"""Text as its tokens come: nothing is said that a later token could change. Torch-free."""

from __future__ import annotations

from typing import Any

HALF = "\ufffd"
BEFORE = "a"


class TextStream:
    """Turns one token id after another into text.

    A character may take several tokens (byte-fallback pieces); it is held back until it is whole. Bytes that never
    become a character appear as U+FFFD once whole text follows them, or at the end.

    Only the tokens since the last whole text are decoded: what has been said stays said, where decoding everything
    again would turn good bytes into U+FFFD when a bad one follows them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Some decoders take off the space in front of the very first word, so later words need one before them.
        self._before: list[int] = list(tokenizer.encode(BEFORE, add_special_tokens=False))
        self._waiting: list[int] = []
        self._said = ""

    @property
    def text(self) -> str:
        """Everything so far, with halves of characters as U+FFFD."""
        return self._said + self._new()

    def add(self, token: int) -> str:
        """The text that has become certain with this token; it may be empty."""
        self._waiting.append(token)
        return "" if self._new().endswith(HALF) else self.end()

    def end(self) -> str:
        """What was held back."""
        new = self._new()
        self._said += new
        self._waiting = []
        return new

    def _new(self) -> str:
        if not self._waiting:
            return ""
        if not self._said:
            return self._decoded(self._waiting)
        return self._decoded([*self._before, *self._waiting])[len(self._decoded(self._before)) :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
