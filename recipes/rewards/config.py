"""Rules that score an answer, as a recipe names them. Torch-free."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kit.config import Config

RuleName = Literal["contains_reference", "direct", "length", "no_repetition", "matches"]

FILLER = [
    "good question",
    "great question",
    "well,",
    "sure,",
    "of course",
    "let me think",
    "let me explain",
    "thank you for asking",
    "thanks for asking",
    "i hope",
    "hope this helps",
    "let me know",
    "feel free",
    "as you may know",
]
"""Phrases that say nothing; `direct` looks for them."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "contains_reference": (),
    "direct": ("filler",),
    "length": ("shortest_words", "longest_words"),
    "no_repetition": ("phrase_words",),
    "matches": ("pattern",),
}
"""Which parameters each rule reads."""


class RuleConfig(Config):
    """One rule; what each of them looks at is in `recipes.rewards.rules`.

    A parameter of another rule is refused, so that it can't be set in vain.
    """

    name: RuleName
    weight: float = Field(default=1.0, gt=0)
    filler: list[Annotated[str, StringConstraints(min_length=1)]] = Field(
        default=FILLER, description="direct: phrases that say nothing, in any case"
    )
    shortest_words: int = Field(default=1, ge=1, description="length: fewest words that are right")
    longest_words: int = Field(default=50, ge=1, description="length: most words that are right")
    phrase_words: int = Field(default=3, ge=1, description="no_repetition: words of the phrases that are compared")
    pattern: str = Field(default="", description="matches: a regular expression, looked for anywhere in the answer")

    @model_validator(mode="after")
    def _parameters_belong(self) -> Self:
        foreign = {key for keys in PARAMETERS.values() for key in keys} - set(PARAMETERS[self.name])
        for key in sorted(foreign):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"rule {self.name} has no parameter {key}")
        if self.shortest_words > self.longest_words:
            raise ValueError(f"shortest_words {self.shortest_words} is more than longest_words {self.longest_words}")
        return self

    @model_validator(mode="after")
    def _pattern_compiles(self) -> Self:
        if self.name == "matches" and not self.pattern:
            raise ValueError("rule matches needs a pattern")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from None
        return self


class RewardRules(Config):
    """The rules that score an answer; the score is their weighted mean."""

    rules: list[RuleConfig] = Field(min_length=1)
