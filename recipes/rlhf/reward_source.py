"""What an answer is worth: by rules, by the parent's reward model, or by both."""

from __future__ import annotations

from recipes.instructions.read import Conversation
from recipes.model.tokenizer import check_same_tokenizer
from recipes.rewards.model import model_reward
from recipes.rewards.rules import RewardFunction, check_rules, rule_reward
from recipes.rlhf.job import Job

REWARD_MODEL = "reward_model"


def build_reward(job: Job) -> RewardFunction:
    """The recipe's reward function; `both` is the rules' score plus model_weight times the model's.

    Raises:
        UserError: If a rule needs references that the data lacks, or the reward model has another tokenizer.
    """
    settings = job.config.reward
    check_rules(settings.rules, job.conversations)
    rules = rule_reward(settings.rules)
    if settings.kind == "rules":
        return rules
    assert job.reward is not None, "the configuration asks for the parent"
    check_same_tokenizer(job.model, job.reward / REWARD_MODEL, "the reward model")
    model = model_reward(job.reward / REWARD_MODEL, job.processes.device)
    if settings.kind == "model":
        return model

    def both(conversations: list[Conversation], answers: list[str]) -> list[float]:
        pairs = zip(rules(conversations, answers), model(conversations, answers), strict=True)
        return [rule + settings.model_weight * score for rule, score in pairs]

    return both
