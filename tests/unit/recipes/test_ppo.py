"""PPO against a brute-force reference in float64, and what it promises about its parts."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import ppo_reference
import pytest
import torch
import tuned_model

from kit.config import load
from kit.errors import UserError
from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate
from recipes.distributed.processes import Processes
from recipes.instructions.read import Conversation
from recipes.rlhf.config import RlhfConfig
from recipes.rlhf.ppo.advantages import generalised_advantages, penalised_rewards, steered_coefficient, whitened
from recipes.rlhf.ppo.engine import PpoEngine
from recipes.rlhf.ppo.losses import policy_losses, value_losses
from recipes.rlhf.ppo.policy import PolicyWithValue
from recipes.rlhf.ppo.prompts import draws, mini_batch_rows, prompt_batches
from recipes.rlhf.ppo.rollout import Rollouts, Sampling, roll_out

ALONE = Processes(0, 1, torch.device("cpu"), 1)
SETS = (
    "layout.data=1",
    f"seed={tuned_model.SEED}",
    "data.sequence_length=64",
    "data.global_batch_samples=8",
    "data.micro_batch_samples=2",
    "generation={new_tokens: 10, temperature: 0.9}",
    "optimizer={learning_rate: 3e-3, weight_decay: 0.1, clip_grad: 0.8}",
    "ppo={epochs: 3, mini_batches: 2, gamma: 0.97, lam: 0.9, clip_policy: 0.1, clip_value: 0.05, kl_coefficient: 0.2, "
    "target_kl: 0.5, value_coefficient: 0.3, entropy_coefficient: 0.02, missing_end_penalty: 0.4, rollout_samples: 5}",
)


def configure(*sets: str) -> RlhfConfig:
    return load(RlhfConfig, tuned_model.ROOT / "recipes" / "rlhf" / "demo.yaml", [*SETS, *sets])


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned_model.write_parents(tmp_path_factory.mktemp("parents"), steps=100)


@pytest.fixture(scope="module")
def loaded(parents: Path) -> tuple[Any, ChatTemplate]:
    model, tokenizer = load_model(parents / "sft" / "artifacts" / "model", dtype=torch.float64)
    return model, ChatTemplate.of(tokenizer)


@pytest.fixture(scope="module")
def conversations(parents: Path) -> list[Conversation]:
    return tuned_model.split(parents / "data.jsonl")[0]


def reward(conversations: list[Conversation], answers: list[str]) -> list[float]:
    return [len(text) % 7 / 7 + 0.1 * text.count("a") for text in answers]


def engine_of(model: Any, template: ChatTemplate, config: RlhfConfig) -> PpoEngine:
    return PpoEngine(config, deepcopy(model), template, reward, reward, ALONE)


@pytest.mark.parametrize(
    "sets", [(), ("ppo.whiten_rewards=false", "ppo.whiten_advantages=false", "ppo.target_kl=null")]
)
def test_three_steps_are_those_of_the_reference(
    loaded: tuple[Any, ChatTemplate], conversations: list[Conversation], sets: tuple[str, ...]
) -> None:
    (model, template), config = loaded, configure(*sets)
    engine = engine_of(model, template, config)
    brute = ppo_reference.Reference(deepcopy(model), model, config, template.stop_ids)
    clipped = np.zeros(2)
    for batch in prompt_batches(conversations, range(1, 4), 8, config.seed):
        prompts = [template.prompt_ids(one.prompt) for one in batch.conversations]
        samples = brute.roll_out(prompts, draws(batch, 10, config.seed))
        scores = reward(list(batch.conversations), [template.text_of(sample.answer) for sample in samples])
        wanted = brute.step(
            samples, scores, lambda epoch, batch=batch: mini_batch_rows(batch, epoch, 2, config.seed), 3e-3
        )
        result = engine.train_step(batch, 3e-3)
        told = {**result.extra, "loss": result.loss, "grad_norm": result.grad_norm}
        assert {key: told[key] for key in wanted} == pytest.approx(wanted, rel=1e-8, abs=1e-10)
        assert told["reward"] == pytest.approx(sum(scores) / 8)
        assert result.tokens == sum(len(sample.prompt) + len(sample.answer) for sample in samples)
        assert {sample.ended for sample in samples} == {True, False}, "the test wants whole and cut answers"
        clipped += [told["clip_fraction"], told["value_clip_fraction"]]
    assert (clipped > 0.02).all(), "the test wants both clips to decide"
    mine = [*engine.model.parameters(), *engine._policy.value_head.parameters()]
    for one, other in zip(mine, brute.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    assert engine.kl_coefficient == pytest.approx(brute.kl_coefficient, rel=1e-9)
    assert (engine.kl_coefficient != config.ppo.kl_coefficient) == (config.ppo.target_kl is not None)


def test_gradients_are_finite_differences(loaded: tuple[Any, ChatTemplate], conversations: list[Conversation]) -> None:
    """The losses' own gradient, once without anybody's autograd; ratios and values far enough that some are clipped."""
    generator = torch.Generator().manual_seed(0)
    old, advantages, returns = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    now = (old + 0.3 * torch.randn(5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    for losses in (
        lambda x: policy_losses(x, old, advantages, 0.2)[0].sum(),
        lambda x: value_losses(x, old, returns, 0.2)[0].sum(),
    ):
        (gradient,) = torch.autograd.grad(losses(now), now)
        for place in ((0, 0), (2, 3), (4, 6), (1, 5)):
            nudge = torch.zeros_like(now)
            nudge[place] = 1e-6
            difference = (losses(now + nudge) - losses(now - nudge)) / 2e-6
            assert difference.item() == pytest.approx(gradient[place].item(), abs=1e-7)


def test_the_clips_take_the_worse_of_the_two() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]).log()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    found, decided = policy_losses(ratio, torch.zeros(5), advantages, 0.2)
    assert found.tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8, -2.2])
    assert decided.tolist() == [True, False, False, True, False]
    found, decided = value_losses(torch.tensor([1.0, 1.0]), torch.zeros(2), torch.tensor([1.0, -1.0]), 0.5)
    assert found.tolist() == pytest.approx([0.125, 2.0])
    assert decided.tolist() == [True, False]


def test_scores_stand_on_the_last_token_and_advantages_end_with_the_answer() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    logs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 9.0, 9.0]])
    earned = penalised_rewards(torch.tensor([10.0, 20.0]), logs, torch.zeros(2, 3), mask, 0.5)
    assert earned.tolist() == [[0.5, 1.0, 11.5], [20.5, 0.0, 0.0]]
    advantages, returns = generalised_advantages(earned, torch.zeros(2, 3), mask, gamma=1.0, lam=1.0)
    assert advantages.tolist() == returns.tolist() == [[13.0, 12.5, 11.5], [20.5, 0.0, 0.0]]
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 7.0, 7.0]])
    advantages, returns = generalised_advantages(earned, values, mask, gamma=0.5, lam=0.0)
    assert advantages.tolist() == [[0.5, 0.5, 8.5], [16.5, 0.0, 0.0]]
    assert returns.tolist() == [[1.5, 2.5, 11.5], [20.5, 0.0, 0.0]]


def test_whitening_sees_what_counts_and_nothing_else() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    white = whitened(torch.tensor([[1.0, 2.0], [3.0, 1e6]]), mask, lambda number: number)
    assert white[1, 1] == 0
    assert white[mask].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white[mask].square().mean().item() == pytest.approx(1.0)
    alike = whitened(torch.full((4,), 0.7), torch.ones(4, dtype=torch.bool), lambda number: number)
    assert alike.abs().max() < 1e-3


def test_the_coefficient_is_steered_by_two_percent_at_most() -> None:
    assert steered_coefficient(1.0, 2.0, 1.0) == pytest.approx(1.02)
    assert steered_coefficient(1.0, -3.0, 1.0) == pytest.approx(0.98)
    assert steered_coefficient(1.0, 1.1, 1.0) == pytest.approx(1.01)


def rolled(loaded: tuple[Any, ChatTemplate], prompts: list[list[int]], rows: int) -> Rollouts:
    model, template = loaded
    sampling = Sampling(1.3, template.stop_ids, template.pad_id, 64, rows)
    lots = np.random.default_rng(5).random((len(prompts), 24))
    return roll_out(PolicyWithValue(deepcopy(model)).eval(), prompts, lots, sampling)


def test_an_answer_does_not_depend_on_who_is_answered_beside_it(
    loaded: tuple[Any, ChatTemplate], conversations: list[Conversation]
) -> None:
    prompts = [loaded[1].prompt_ids(one.prompt) for one in conversations]
    together, apart = rolled(loaded, prompts, 100), rolled(loaded, prompts, 1)
    assert together.answers() == apart.answers()
    assert len({len(answer) for answer in together.answers()}) > 3, "the test wants rows to leave the batch early"
    torch.testing.assert_close(together.log_probs, apart.log_probs, rtol=1e-9, atol=1e-9)
    assert together.ended.tolist() == apart.ended.tolist()
    for answer, ended in zip(together.answers(), together.ended.tolist(), strict=True):
        assert (answer[-1] in loaded[1].stop_ids) == ended
        assert not set(answer[:-1]) & set(loaded[1].stop_ids)
        assert ended or len(answer) == 24


def test_an_answer_ends_with_the_context(loaded: tuple[Any, ChatTemplate], conversations: list[Conversation]) -> None:
    template = loaded[1]
    prompt = template.prompt_ids(conversations[0].prompt)
    long = [*prompt[:2], *([prompt[3]] * (60 - len(prompt))), *prompt[2:]]
    found = rolled(loaded, [prompt, long], 8)
    assert len(long) + len(found.answers()[1]) <= 64
    with pytest.raises(AssertionError, match="without room"):
        rolled(loaded, [prompt * 5], 8)


def test_sampling_follows_the_probabilities(
    loaded: tuple[Any, ChatTemplate], conversations: list[Conversation]
) -> None:
    model, template = loaded
    prompt = template.prompt_ids(conversations[0].prompt)
    sampling = Sampling(1.0, template.stop_ids, template.pad_id, 64, 4000)
    lots = np.random.default_rng(1).random((4000, 1))
    found = roll_out(PolicyWithValue(deepcopy(model)).eval(), [prompt] * 4000, lots, sampling)
    drawn = torch.bincount(torch.tensor(found.answers())[:, 0], minlength=model.config.vocab_size) / 4000
    with torch.no_grad():
        wanted = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    assert (drawn - wanted).abs().max() < 0.03


def test_prompts_and_draws_are_the_same_however_many_ranks_share_them(conversations: list[Conversation]) -> None:
    whole = list(prompt_batches(conversations, range(3, 6), 8, seed=1))
    halves = [list(prompt_batches(conversations, range(3, 6), 8, 1, rank, 2)) for rank in range(2)]
    for number, batch in enumerate(whole):
        pieces = [half[number] for half in halves]
        assert batch.conversations == pieces[0].conversations + pieces[1].conversations
        joined = np.concatenate([draws(piece, 5, seed=1) for piece in pieces])
        assert np.array_equal(draws(batch, 5, seed=1), joined)
        for epoch in range(2):
            rows = [mini_batch_rows(piece, epoch, 2, seed=1) for piece in pieces]
            together = [[*first, *(row + 4 for row in second)] for first, second in zip(*rows, strict=True)]
            assert together == mini_batch_rows(batch, epoch, 2, seed=1)
    assert not np.array_equal(draws(whole[0], 5, seed=1), draws(whole[1], 5, seed=1))
    assert not np.array_equal(draws(whole[0], 5, seed=1), draws(whole[0], 5, seed=2))


def test_a_batch_that_does_not_multiply_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"ppo\.mini_batches 3"):
        configure("ppo.mini_batches=3")
    with pytest.raises(UserError, match="top_k"):
        configure("generation.top_k=5")
