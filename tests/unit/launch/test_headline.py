"""The lines that a chain prints when it has finished."""

from typing import Any

import pytest

from launch.headline import headline

ALIGNED: dict[str, Any] = {
    "sft_loss_before": 4.5,
    "sft_loss_after": 0.5,
    "sft_reference_contained_before": 0.0,
    "sft_reference_contained_after": 0.754,
    "reward_accuracy": 0.92,
    "reward_accuracy_before": 0.48,
    "rlhf_algorithm": "ppo",
    "rule_reward_before": 0.5,
    "rule_reward_after": 0.9,
    "rule_reward_share_of_attainable": 0.8,
    "kl_nats_per_answer": 3.25,
    "win_rate": 0.8,
    "win_p_value": 0.00183,
}


def test_tuning_and_alignment_have_a_line_each() -> None:
    assert headline(ALIGNED).splitlines() == [
        "Instruction tuning: right answers 0 % -> 75 %, loss 4.50 -> 0.50 nats per counted token",
        "Reward model: 92 % of held-out pairs ranked right (48 % before)",
        "Alignment, ppo: rule reward 0.50 -> 0.90 (80 % of what was attainable), KL 3.25 nats per answer",
        "Win rate over its parent: 80 %, ties half (sign test p = 0.0018)",
    ]


@pytest.mark.parametrize("key", list(ALIGNED))
def test_what_was_not_measured_is_left_out(key: str) -> None:
    text = headline({**ALIGNED, key: None})
    assert "None" not in text or key == "rlhf_algorithm"
    assert headline({}) == ""
