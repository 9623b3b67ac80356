"""Configuration of PPO. Torch-free."""

from __future__ import annotations

from pydantic import Field

from kit.config import Config


class PpoConfig(Config):
    """Proximal policy optimisation (Schulman et al. 2017) against a score and a KL penalty (Ziegler et al. 2019)."""

    epochs: int = Field(default=4, ge=1, description="how often each rollout is learnt from")
    mini_batches: int = Field(default=2, ge=1, description="optimizer steps of one epoch")
    rollout_samples: int = Field(default=64, ge=1, description="prompts that one rank answers at once")
    gamma: float = Field(default=1.0, ge=0, le=1, description="discount of later rewards")
    lam: float = Field(default=0.95, ge=0, le=1, description="of generalised advantage estimation")
    clip_policy: float = Field(default=0.2, gt=0, description="furthest ratio of probabilities from 1 that counts")
    clip_value: float = Field(default=0.2, gt=0, description="furthest a value may move from the rollout's and count")
    kl_coefficient: float = Field(default=0.05, ge=0, description="score lost per nat of KL to the reference")
    target_kl: float | None = Field(
        default=None, gt=0, description="nats per answer that the coefficient is steered to; empty: it stays"
    )
    value_coefficient: float = Field(default=0.1, ge=0)
    entropy_coefficient: float = Field(default=0.0, ge=0)
    whiten_rewards: bool = Field(
        default=True, description="scores get mean 0 and variance 1 over a step's answers; the KL penalty comes after"
    )
    whiten_advantages: bool = Field(default=True, description="the same for advantages, over a step's answer tokens")
    missing_end_penalty: float = Field(
        default=0.0, ge=0, description="taken from the score of an answer that was cut off before <|end|>"
    )
