"""What a check of a dataset brings to light."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kit.errors import UserError
from kit.tokens.card import DatasetCard

Depth = Literal["fast", "full", "thorough"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset.

    Attributes:
        where: The split, or "tokenizer" or "card".
        level: error: training on it would be wrong, so it is refused; warning: worth a look.
        found: What was found, with its figure.
        expected: What was expected there.
        action: What to do.
    """

    where: str
    level: Literal["error", "warning"]
    found: str
    expected: str
    action: str

    def as_data(self) -> dict[str, str]:
        """For --json."""
        return asdict(self)

    def as_error(self) -> UserError:
        """The finding as what stops a training run."""
        return UserError(self.found, expected=self.expected, action=self.action)


def finding_of(where: str, error: UserError) -> Finding:
    """An error that opening a file raised, as a finding."""
    return Finding(where, "error", error.found, error.expected, error.action)


@dataclass
class SplitFacts:
    """Figures of one split; None where the depth of the check, or the card, does not give them.

    Attributes:
        documents: In its index.
        tokens: In its token file.
        bytes_per_token: UTF-8 bytes of text a token, end tokens left out.
        entropy_bits: Of the frequencies of single tokens.
        unknown_rate: Share of tokens that are the unknown piece.
        byte_rate: Share of tokens that stand for a single byte.
        empty_documents: Documents of nothing but an end token.
        repeated_share: Share of documents whose tokens an earlier document of the split has too.
        leaked_share: Share of documents whose tokens a document of the training split has too.
        near_leaked_share: The same of the first 64 tokens, among documents that have so many.
    """

    documents: int
    tokens: int
    bytes_per_token: float | None = None
    entropy_bits: float | None = None
    unknown_rate: float | None = None
    byte_rate: float | None = None
    empty_documents: int | None = None
    repeated_share: float | None = None
    leaked_share: float | None = None
    near_leaked_share: float | None = None

    def as_data(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass
class Examination:
    """All that was found."""

    folder: Path
    depth: Depth
    card: DatasetCard
    splits: dict[str, SplitFacts] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """What training refuses."""
        return [finding for finding in self.findings if finding.level == "error"]
