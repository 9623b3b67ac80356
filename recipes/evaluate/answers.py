"""What models answer to the same prompts, what the rules say of it, and who wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recipes.chat.generation import generate_answers
from recipes.evaluate.compare import compare_scores
from recipes.evaluate.config import InstructionsConfig
from recipes.instructions.read import Conversation
from recipes.rewards.config import RuleConfig
from recipes.rewards.rules import score_answer


@dataclass(frozen=True)
class Answers:
    """One model's answers, in the order of the prompts, and their rewards (0 to 1; none without rules)."""

    texts: list[str]
    rewards: list[float]

    @property
    def mean_reward(self) -> float | None:
        """The mean over the prompts."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else None


def answer(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    rules: Sequence[RuleConfig],
    config: InstructionsConfig,
) -> Answers:
    """Lets a model answer greedily, in the chat format, whether or not it has ever seen that format.

    Raises:
        UserError: If its tokenizer lacks the chat template's tokens, or a rule can't score a conversation.
    """
    texts = generate_answers(
        model,
        tokenizer,
        [conversation.prompt for conversation in conversations],
        new_tokens=config.new_tokens,
        temperature=0.0,
        seed=config.seed,
        batch_samples=config.batch_samples,
    )
    pairs = zip(texts, conversations, strict=True)
    return Answers(texts, [score_answer(rules, text, one) for text, one in pairs] if rules else [])


def comparison(first: str, second: str, answers: Mapping[str, Answers]) -> dict[str, Any] | None:
    """How the second model's answers do against the first's by the rules; None without rules."""
    before, after = answers[first].rewards, answers[second].rewards
    return {"first": first, "second": second, **asdict(compare_scores(before, after))} if before and after else None


def shown_answers(
    conversations: Sequence[Conversation], answers: Mapping[str, Answers], shown: int
) -> list[dict[str, Any]]:
    """A few prompts with every model's answer, spread evenly over all prompts."""
    count = min(shown, len(conversations))
    chosen = [index * len(conversations) // count for index in range(count)] if count else []
    return [
        {
            "prompt": conversations[index].prompt_text,
            "reference": conversations[index].reference,
            "answers": {name: found.texts[index] for name, found in answers.items()},
            "rewards": {name: found.rewards[index] for name, found in answers.items() if found.rewards},
        }
        for index in chosen
    ]
