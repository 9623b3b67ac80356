from __future__ import annotations

import numpy as np
import pytest
import real_text

from kit.errors import UserError
from recipes.data import SampleStream, batches, documents_of, join_batches


@pytest.fixture(scope="module")
def stream() -> SampleStream:
    return SampleStream(real_text.byte_tokens()[:5000], sequence_length=64, seed=7)


def test_labels_are_the_next_tokens_of_the_text(stream: SampleStream) -> None:
    batch = stream.batch(1, 0, 6)
    for number, tokens, labels in zip(stream.sample_numbers(0, 6), batch.tokens, batch.labels, strict=True):
        start = int(number) * 64
        np.testing.assert_array_equal(tokens, stream.tokens[start : start + 64])
        np.testing.assert_array_equal(labels, stream.tokens[start + 1 : start + 65])


def test_an_epoch_shows_every_sample_once_and_the_next_in_another_order(stream: SampleStream) -> None:
    first, second = stream.epoch_order(0), stream.epoch_order(1)
    assert sorted(first) == sorted(second) == list(range(len(stream)))
    assert list(first) != list(second)


def test_the_order_crosses_epochs(stream: SampleStream) -> None:
    size = len(stream)
    across = stream.sample_numbers(size - 3, size + 3)
    np.testing.assert_array_equal(across, np.concatenate((stream.epoch_order(0)[-3:], stream.epoch_order(1)[:3])))


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_data_ranks_slices_are_the_global_batch(stream: SampleStream, degree: int) -> None:
    whole = next(batches(stream, range(5, 6), 8)).tokens
    slices = [next(batches(stream, range(5, 6), 8, rank, degree)).tokens for rank in range(degree)]
    np.testing.assert_array_equal(np.concatenate(slices), whole)


def test_a_later_start_continues_the_same_order(stream: SampleStream) -> None:
    all_steps = {batch.step: batch.tokens for batch in batches(stream, range(1, 31), 8)}
    for batch in batches(stream, range(17, 31), 8):
        np.testing.assert_array_equal(batch.tokens, all_steps[batch.step])


def test_another_seed_gives_another_order(stream: SampleStream) -> None:
    assert list(SampleStream(stream.tokens, 64, seed=8).epoch_order(0)) != list(stream.epoch_order(0))


def test_a_split_that_is_too_short_is_refused() -> None:
    with pytest.raises(UserError, match="64 tokens"):
        SampleStream(real_text.byte_tokens()[:64], sequence_length=64, seed=0)


NEWLINE = ord("\n")


def test_documents_end_with_their_end_token() -> None:
    stream = SampleStream(real_text.byte_tokens()[:5000], 64, seed=7, eod_id=NEWLINE)
    batch = stream.batch(1, 0, 8)
    assert batch.documents is not None
    for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
        lines = [list(tokens[documents == n]) for n in range(documents.max() + 1)]
        assert [token for line in lines for token in line] == list(tokens)
        assert all(line[-1] == NEWLINE for line in lines[:-1])
        assert all(NEWLINE not in line[:-1] for line in lines)
    assert batch.documents.max() > 1, "a sample with several lines, or the test says little"


def test_without_an_end_token_a_sample_is_one_text(stream: SampleStream) -> None:
    batch = stream.batch(1, 0, 2)
    assert batch.documents is None
    assert batch.sources is None


def test_an_end_token_in_the_last_place_ends_no_document_of_the_sample() -> None:
    np.testing.assert_array_equal(documents_of(np.array([[9, 1, 2, 9]]), 9), [[0, 1, 1, 1]])


def test_pieces_of_a_batch_join_to_the_batch() -> None:
    batch = SampleStream(real_text.byte_tokens()[:5000], 64, seed=7, eod_id=NEWLINE).batch(3, 0, 8)
    pieces = list(batch.pieces(2))
    assert [len(piece.tokens) for piece in pieces] == [2, 2, 2, 2]
    joined = join_batches(pieces)
    for name in ("tokens", "labels", "documents"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(batch, name))


def test_many_streams_keep_their_orders() -> None:
    streams = [SampleStream(real_text.byte_tokens()[:5000], 64, seed=seed) for seed in range(20)]
    orders = [stream.epoch_order(0) for stream in streams]
    assert all(
        order is not None and list(order) == list(s.epoch_order(0)) for order, s in zip(orders, streams, strict=True)
    )
