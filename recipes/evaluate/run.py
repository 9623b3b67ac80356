"""The evaluate stage: exported models -> perplexity, bits per byte, tasks, answers, comparisons, sample texts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from kit.files import atomic_write
from kit.run.directory import RunDirectory
from recipes.chat.generation import load_tokenizer
from recipes.chat.template import ChatTemplate
from recipes.dataset import open_dataset
from recipes.distributed.processes import join
from recipes.evaluate.answers import Answers, answer, comparison, shown_answers
from recipes.evaluate.candidates import Candidate, choose_prompts, comparisons, find_candidates
from recipes.evaluate.config import DATA, EvaluateConfig
from recipes.evaluate.measure import HeldOut, Measured, check_tokenizers
from recipes.evaluate.score import CONVENTION, Score, score_unigram
from recipes.evaluate.text import Text, read_texts
from recipes.instructions.read import Conversation
from recipes.rewards.rules import check_rules


def run(config: EvaluateConfig, run: RunDirectory) -> None:
    """Measures every model of the recipe alike, and compares each with the one that it was made from.

    Raises:
        UserError: If an input is missing or malformed, models and data don't belong together, or there is more than
            one process.
    """
    candidates = find_candidates(config, run)
    held_out = HeldOut.of(open_dataset(run), config.split) if DATA in run.manifest().parents else None
    texts, prompts = read_texts(config.text), choose_prompts(config, candidates)
    check_rules(config.rules, prompts)
    _check_models(config, candidates, held_out)
    processes = join(run.target_path)
    if processes.world_size > 1:
        raise UserError(
            f"stage evaluate in a job of {processes.world_size} processes",
            expected="one process, which uses all threads",
            action="start it with one process",
        )
    evaluation = Evaluation(config, held_out, texts, prompts, processes.device)
    result = evaluation.measure(candidates)
    atomic_write(run.artifacts / "evaluation.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in result.items() if isinstance(value, float)}), flush=True)


class Evaluation:
    """One pass over the models; each is loaded once."""

    def __init__(
        self,
        config: EvaluateConfig,
        held_out: HeldOut | None,
        texts: Sequence[Text],
        prompts: Sequence[Conversation],
        device: torch.device,
    ) -> None:
        self._config = config
        self._held_out = held_out
        self._texts = texts
        self._prompts = prompts
        self._device = device
        self._answers: dict[str, Answers] = {}

    def measure(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """The content of evaluation.json: figures of the first model flat, then a row a model."""
        with contextlib.ExitStack() as stack:
            tasks = None
            if self._config.tasks:
                from recipes.evaluate.harness import open_tasks  # seconds to import, and only some recipes need it

                tasks = stack.enter_context(open_tasks(self._config.tasks))
            headline: dict[str, Any] = {}
            rows = []
            for candidate in candidates:
                print(f"Measuring {candidate.name}: {candidate.directory}", flush=True)
                measured = Measured(self._config, candidate.directory, self._device)
                score = self._score(measured)
                row = self._row(candidate, measured, score)
                if tasks:
                    row["tasks"] = tasks.measure(measured.model, measured.tokenizer, self._config.batch_samples)
                if candidate is candidates[0]:
                    headline = self._headline(candidate, measured, score)
                rows.append(row)
                del measured  # before the next model is loaded
        pairs = comparisons(candidates) if self._answers else []
        compared = [
            comparison(candidates[first].name, candidates[second].name, self._answers) for first, second in pairs
        ]
        return headline | {
            "models": rows,
            "comparisons": [entry for entry in compared if entry],
            "answers": shown_answers(self._prompts, self._answers, self._shown),
        }

    @property
    def _shown(self) -> int:
        return self._config.instructions.shown if self._config.instructions else 0

    def _row(self, candidate: Candidate, measured: Measured, score: Score | None) -> dict[str, Any]:
        row: dict[str, Any] = {"name": candidate.name, "stage": candidate.stage, "run_id": candidate.run_id}
        row |= {
            "bits_per_byte": score.bits_per_byte(self._held_out.text_bytes) if score and self._held_out else None,
            "perplexity": score.perplexity if score else None,
            "tokens": score.tokens if score else None,
            "parameters": measured.model.num_parameters(),
            "window_tokens": measured.window,
            "texts": measured.score_texts(self._texts),
            "tasks": {},
            "rule_reward": None,
        }
        if self._config.instructions:
            answers = answer(
                measured.model, measured.tokenizer, self._prompts, self._config.rules, self._config.instructions
            )
            self._answers[candidate.name] = answers
            row |= {"rule_reward": answers.mean_reward, "prompts": len(self._prompts)}
        return row

    def _score(self, measured: Measured) -> Score | None:
        if self._held_out is None:
            return None
        read_anew = self._config.unequal_tokenizers == "compare_bytes"
        stream = self._held_out.stream_for(measured.model, measured.tokenizer, measured.directory, read_anew)
        return measured.score(stream)

    def _headline(self, candidate: Candidate, measured: Measured, score: Score | None) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if score is not None:
            result = self._held_out_figures(candidate, score)
        return result | {"convention": CONVENTION, "samples": measured.write_texts(self._config.samples)}

    def _held_out_figures(self, candidate: Candidate, score: Score) -> dict[str, Any]:
        held_out = self._held_out
        assert held_out is not None
        text_bytes, card = held_out.text_bytes, held_out.dataset.card
        unigram = score_unigram(held_out.dataset.tokens("train"), held_out.stream, card.tokenizer.vocab_size)
        result = {"split": held_out.split, "tokens": score.tokens, "text_bytes": text_bytes}
        result |= _named("", score, text_bytes) | _named("_unigram", unigram, text_bytes)
        first_weights = candidate.directory.parent / "untrained"
        if candidate.run is not None and first_weights.is_dir():
            untrained = self._score(Measured(self._config, first_weights, self._device))
            assert untrained is not None
            result |= _named("_untrained", untrained, text_bytes)
        return result


def _named(suffix: str, score: Score, text_bytes: int) -> dict[str, float]:
    return {f"bits_per_byte{suffix}": score.bits_per_byte(text_bytes), f"perplexity{suffix}": score.perplexity}


def _check_models(config: EvaluateConfig, candidates: Sequence[Candidate], held_out: HeldOut | None) -> None:
    """What can be said of the models before one is loaded."""
    directories: list[Path] = [candidate.directory for candidate in candidates]
    if config.unequal_tokenizers == "refuse":
        names = [candidate.name for candidate in candidates]
        check_tokenizers(directories, names, held_out.dataset if held_out else None)
    if config.instructions or (config.tasks and config.tasks.chat_format):
        for directory in directories:
            ChatTemplate.of(load_tokenizer(directory))
