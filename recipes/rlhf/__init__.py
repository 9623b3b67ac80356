"""Learning from preferences and rewards: PPO (the kit's own), DPO and GRPO (TRL's), measured alike."""
