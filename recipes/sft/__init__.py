"""The stage that teaches a language model to answer: supervised fine-tuning, whole or with LoRA."""
