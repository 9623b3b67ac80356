from __future__ import annotations

import math

import numpy as np
import pytest
import real_text
import torch

from recipes.evaluate.score import evaluation_stream, score_model, score_unigram, windows


@pytest.mark.parametrize("length", [1, 64, 100, 999, 1000, 5000])
def test_windows_predict_every_token_but_the_first_once(length: int) -> None:
    stream = evaluation_stream(real_text.byte_tokens()[:1000], eod_id=2)
    pairs = list(windows(stream, length, batch_samples=3))
    np.testing.assert_array_equal(np.concatenate([labels.ravel() for _, labels in pairs]), stream[1:])
    np.testing.assert_array_equal(np.concatenate([inputs.ravel() for inputs, _ in pairs]), stream[:-1])


def test_a_model_that_knows_nothing_needs_log_vocabulary() -> None:
    stream = evaluation_stream(real_text.byte_tokens()[:500], eod_id=2)
    score = score_model(lambda tokens: torch.zeros(*tokens.shape, 256), stream, 64, 4, torch.device("cpu"))
    assert score.tokens == 500
    assert score.perplexity == pytest.approx(256)
    assert score.bits_per_byte(500) == pytest.approx(8)


def test_the_unigram_model_approaches_the_entropy_of_its_own_text() -> None:
    text = real_text.byte_tokens()
    frequencies = np.bincount(text, minlength=256) / len(text)
    entropy = -sum(p * math.log2(p) for p in frequencies if p)
    score = score_unigram(text, evaluation_stream(text, eod_id=2), vocab=256)
    assert score.bits_per_byte(len(text)) == pytest.approx(entropy, rel=0.01)


def test_the_unigram_model_is_smoothed() -> None:
    score = score_unigram(np.array([0, 0, 0]), np.array([2, 1]), vocab=3)
    assert score.nats == pytest.approx(math.log(6))
