"""What the stages write, as small made-up files with numbers that can be checked by hand."""

import math
from typing import Any

from kit.metrics import StepRecord
from kit.tokens.card import BlockCard, DatasetCard, Example, InputCard, LanguageCard, SplitCard, TokenizerCard

HOSTILE = "<script>alert('crawled')</script> & \"quotes\" </details> | `pipe`"
DIGEST = "sha256:" + "ab" * 32


def answer_row(before: str, after: str, **more: Any) -> dict[str, Any]:
    prompt = "What does HTTP status 404 mean?"
    return {"prompt": prompt, "reference": "Not Found", "before": before, "after": after, **more}


SFT: dict[str, Any] = {
    "method": "full",
    "pairs": 300,
    "held_out_pairs": 40,
    "dropped_too_long": 2,
    "parameters": 1_250_000,
    "trained_parameters": 1_250_000,
    "steps": 12,
    "loss_before": 4.5,
    "loss_after": 0.5,
    "merge_max_logit_difference": None,
    "answers": [
        answer_row("the pool of", "HTTP status 404 means Not Found."),
        answer_row(HOSTILE, "It means not  found, I hope."),
        answer_row("", "HTTP status 404 means Gone."),
    ],
    "reference_contained_before": 0.0,
    "reference_contained_after": 0.75,
}
REWARD: dict[str, Any] = {
    "pairs": 200,
    "held_out_pairs": 50,
    "ties_dropped": 12,
    "accuracy_before": 0.48,
    "accuracy": 0.92,
    "margin": 1.75,
    "temperatures": [0.7, 1.3],
    "loss_before": 0.6931,
    "loss_after": 0.2,
    "steps": 12,
    "parameters": 1_250_001,
    "engine": "accelerate",
    "examples": [
        {
            "prompt": "What is 404?",
            "chosen": "Not Found.",
            "rejected": HOSTILE,
            "score_chosen": 1.5,
            "score_rejected": -2,
        }
    ],
}
RLHF: dict[str, Any] = {
    "algorithm": "ppo",
    "rule_reward_before": 0.5,
    "rule_reward_after": 0.9,
    "rule_reward_attainable": 1.0,
    "share_of_attainable": 0.8,
    "kl_nats_per_answer": 3.25,
    "win_rate": 0.8,
    "wins": 13,
    "losses": 1,
    "ties": 6,
    "p_value": 0.0018310546875,
    "prompts": 20,
    "answers": [
        answer_row(
            "Good question! 404 means Not Found.", "404 means Not Found.", reward_before=0.625, reward_after=1.0
        ),
        answer_row(HOSTILE, HOSTILE, reward_before=0.0, reward_after=0.0),
    ],
}
EVALUATION: dict[str, Any] = {
    "bits_per_byte": 2.0,
    "bits_per_byte_untrained": 5.0,
    "bits_per_byte_unigram": 3.0,
    "perplexity": 60.0,
    "perplexity_untrained": 4100.0,
    "perplexity_unigram": 600.0,
    "tokens": 9000,
    "text_bytes": 30000,
    "convention": "bits of all predicted tokens over the text's UTF-8 bytes",
    "samples": [{"prompt": "The manual", "text": "The manual says <b>bold</b>", "temperature": 0.8}],
}


def model_row(name: str, stage: str, bits: float, accuracy: float, reward: float) -> dict[str, Any]:
    task = {"metric": "acc", "value": accuracy, "stderr": 0.05, "samples": 60, "chance": 0.25}
    row = {"name": name, "stage": stage, "run_id": f"a-{stage}-run", "bits_per_byte": bits, "perplexity": 2**bits}
    return {**row, "tasks": {"facts": task}, "rule_reward": reward}


MODELS: dict[str, Any] = {
    "models": [
        model_row("model", "pretrain", 2.0, 0.3, 0.1),
        model_row("sft", "sft", 2.25, 0.5, 0.5),
        model_row("rlhf", "rlhf", 2.5, 0.55, 0.9),
    ],
    "comparisons": [
        {"first": "model", "second": "sft", "win_rate": 0.9, "wins": 17, "losses": 1, "ties": 2, "p_value": 0.0001},
        {"first": "sft", "second": "rlhf", "win_rate": 0.55, "wins": 5, "losses": 3, "ties": 12, "p_value": 0.7265625},
    ],
    "answers": [
        {
            "prompt": "What does HTTP status 404 mean?",
            "reference": "Not Found",
            "answers": {"model": HOSTILE, "sft": "Well, 404 means Not Found.", "rlhf": "404 means Not Found."},
            "rewards": {"model": 0.0, "sft": 0.75, "rlhf": 1.0},
        },
        {
            "prompt": "What is errno 2?",
            "reference": "No such file",
            "answers": {"model": "", "sft": "It means no such files.", "rlhf": "It means No such file or directory."},
        },
    ],
}
PREDICTED: dict[str, Any] = {
    "memory_gib_per_device": 0.29,
    "memory_parts": {"parameters": 5_000_000, "gradients": 5_000_000, "optimizer": 10_000_000},
    "seconds": 82.0,
    "cost_usd": None,
    "assumptions": ["40 % of the peak", "no recomputation."],
}


def sft_record(step: int) -> StepRecord:
    return StepRecord(
        step=step, loss=4.5 * math.exp(-0.2 * step), learning_rate=1e-3, tokens=512, samples=16, step_seconds=0.5,
        tokens_per_second=1024.0, peak_memory_gib=0.4, validation_loss=0.5 if step == 12 else None,
    )  # fmt: skip


def reward_record(step: int) -> StepRecord:
    return StepRecord(step=step, loss=0.7 - 0.04 * step, step_seconds=0.5, extra={"accuracy": 0.5 + 0.035 * step})


def rlhf_record(step: int, algorithm: str) -> StepRecord:
    common: dict[str, Any] = {"step": step, "loss": 0.7 - 0.01 * step, "step_seconds": 1.0, "tokens": 900}
    if algorithm == "dpo":
        return StepRecord(**common, extra={"reward_accuracy": 0.5 + 0.02 * step, "reward_margin": 0.1 * step})
    extra = {"reward": 0.1 * step, "rule_reward": 0.5 + 0.02 * step, "kl_nats_per_answer": 0.2 * step}
    return StepRecord(**common, extra={**extra, "kl_nats_per_token": 0.01 * step})


def owned_record(step: int, ranks: int) -> StepRecord:
    """ZeRO 2: whole parameters on every rank, gradients and optimizer state shared out; rank 0 has a little more."""
    extra: dict[str, float] = {}
    for rank in range(ranks):
        extra[f"owned_parameter_bytes_rank_{rank}"] = 4 * 2**20
        extra[f"owned_gradient_bytes_rank_{rank}"] = 2 * 2**20
        extra[f"owned_optimizer_bytes_rank_{rank}"] = 4 * 2**20 + (512 if rank == 0 else 0)
    return record(step, 1000.0, 8).model_copy(update={"extra": extra})


def record(step: int, rate: float, steps: int) -> StepRecord:
    last = step == steps
    return StepRecord(
        step=step,
        loss=8.0 * math.exp(-0.12 * step),
        learning_rate=1e-3,
        tokens=2048,
        samples=16,
        step_seconds=2048 / rate,
        tokens_per_second=rate,
        compute_seconds=2000 / rate,
        data_seconds=48 / rate,
        peak_memory_gib=0.5 + 0.01 * step,
        validation_loss=4.0 if last else None,
    )


def finished_training(tensor: int, replicas: int) -> dict[str, Any]:
    world = tensor * replicas
    return {
        "flops_convention": "megatron",
        "flops_per_token": 5_000_000.0,
        "peak_flops_per_second": 5e10 * world,
        "peak_source": "measured fp32 matmul 1024, one thread a process",
        "parameters": 1_250_000,
        "parameters_non_embedding": 750_000,
        "layout": {"data": replicas, "tensor": tensor, "pipeline": 1, "context": 1, "interleave": 1, "sequence": False},
        "world_size": world,
        "threads_per_process": 1,
        "device": "cpu",
        "engine": "megatron",
        "validation_loss_before": 8.5,
        "validation_loss_after": 4.0,
        "export_max_logit_difference": 1.2e-6,
        "global_batch_tokens": 2048,
        "tokens": 16384,
        "steps": 8,
        "resumed_from": [],
    }


def card(run_id: str) -> DatasetCard:
    examples = {"too short": [Example(id="record-1", url="javascript:alert(1)", text=HOSTILE)]}
    return DatasetCard(
        name="demo",
        created_by=run_id,
        splits={
            "train": split("train", documents=54, tokens=90_000, text_bytes=300_000),
            "validation": split("validation", documents=6, tokens=9_000, text_bytes=30_000),
        },
        tokenizer=TokenizerCard(
            kind="sentencepiece-bpe", vocab_size=4096, fingerprint="cd" * 32, file="tokenizer/tokenizer.model",
            eod_id=2, pad_id=3,
        ),
        blocks=[
            BlockCard(
                name="extract", documents_in=100, documents_out=90, bytes_in=2_000_000, bytes_out=500_000, seconds=3.0,
                dropped={"no text": 10},
            ),
            BlockCard(
                name="quality", documents_in=90, documents_out=70, bytes_in=500_000, bytes_out=400_000, seconds=1.5,
                dropped={"too short": 15, "repetition": 5}, examples=examples,
            ),
            BlockCard(
                name="minhash", documents_in=70, documents_out=60, bytes_in=400_000, bytes_out=330_000, seconds=2.0,
                dropped={"near duplicate": 10},
            ),
        ],
        languages={"en": LanguageCard(documents=40, bytes=230_000), "de": LanguageCard(documents=20, bytes=100_000)},
        inputs=[InputCard(path="docs.warc.gz", bytes=700_000, sha256="ef" * 32)],
        records_corrupt=3,
        config_digest=DIGEST,
        documents_in=100,
        documents_out=60,
    )  # fmt: skip


def split(name: str, documents: int, tokens: int, text_bytes: int) -> SplitCard:
    return SplitCard(
        prefix=f"shards/{name}", documents=documents, tokens=tokens, text_bytes=text_bytes,
        sha256_bin="01" * 32, sha256_idx="23" * 32,
    )  # fmt: skip
