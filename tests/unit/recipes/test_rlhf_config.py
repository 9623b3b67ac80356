"""Recipes of the rlhf stage that can't work are refused before anything starts, in words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.config import load
from kit.errors import UserError
from recipes.rlhf.config import RlhfConfig

RECIPES = sorted((Path(__file__).resolve().parents[3] / "recipes" / "rlhf").glob("*.yaml"))
DPO = next(path for path in RECIPES if path.stem == "tiny-dpo")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["algorithm=grpo", "grpo.group_samples=6"], "must be a multiple of grpo.group_samples 6"),
        (["data.micro_batch_samples=3"], "must be a multiple of layout.data 1 x data.micro_batch_samples 3"),
        (["layout.data=3"], "must be a multiple of layout.data 3"),
        (["layout.tensor=2"], "data-parallel only"),
        (["generation.new_tokens=64"], "generation.new_tokens 64 must be less than data.sequence_length 64"),
        (["validation.every_steps=5"], "measures before and after"),
        (["algorithm=ppo", "generation.top_k=5"], "ppo samples from the whole vocabulary"),
        (["generation.temperature=0"], "generation.temperature"),
        (["algorithm=rloo"], "ppo"),
        (["dpo.bta=0.2"], "dpo.bta"),
    ],
)
def test_what_does_not_fit_together_is_refused(sets: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(RlhfConfig, DPO, sets)
    assert words in str(caught.value)
    assert caught.value.expected
    assert caught.value.action


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("algorithm: dpo", "parents.reward is missing, and algorithm dpo needs one"),
        ("algorithm: ppo\nreward: {kind: model}", "parents.reward is missing, and reward.kind model needs one"),
        ("algorithm: grpo\nreward: {kind: both}", "parents.reward is missing, and reward.kind both needs one"),
        ("algorithm: grpo", None),
        ("algorithm: ppo", None),
    ],
)
def test_a_reward_parent_is_asked_for_where_it_is_read(tmp_path: Path, text: str, words: str | None) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "stage: rlhf\nname: x\nparents: {model: 'last:sft'}\noptimizer: {learning_rate: 1e-4}\nbudget: {steps: 2}\n"
        f"data: {{files: [x.jsonl], sequence_length: 64, global_batch_samples: 8}}\n{text}\n"
    )
    if words is None:
        assert not load(RlhfConfig, recipe).reads_reward_parent
        return
    with pytest.raises(UserError, match="parents") as caught:
        load(RlhfConfig, recipe)
    assert words in caught.value.found
