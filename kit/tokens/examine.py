"""Examines a dataset: shards, card and tokenizer against one another, and the tokens against what text looks like."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from kit.errors import UserError
from kit.files import disk_full_as_failure, require_file, sha256_file
from kit.tokens.alarms import Alarms
from kit.tokens.card import CARD_NAME, DatasetCard, SplitCard, read_card
from kit.tokens.findings import Depth, Examination, Finding, SplitFacts, finding_of
from kit.tokens.fingerprints import FingerprintFile, repeated, shared
from kit.tokens.scan import Scan, scan_all, scan_sample
from kit.tokens.shards import Shard

TRAIN = "train"
_COPY = "copy the shards and the card again, or run data_prep again"
_REMAKE = "run data_prep again: shards and tokenizer do not belong together"
_PART = 1 << 20
_INDEX_HEADER_BYTES = 34  # see kit/tokens/shards.py


def examine(artifacts: Path, tokenizer_file: Path | None = None, depth: Depth = "full") -> Examination:
    """Look at everything and collect what is wrong.

    Args:
        artifacts: Folder with card.json.
        tokenizer_file: The SentencePiece model that training will use; the card's own if None.
        depth: fast: indexes, counts, sizes, the tokenizer's fingerprint and a bounded sample of ids, for the start of
            training. full: every token and every document. thorough: also the SHA-256 of every shard file.

    Raises:
        UserError: If there is no card, or it cannot be read.
    """
    card = read_card(artifacts / CARD_NAME)
    found = Examination(artifacts, depth, card)
    found.findings += _tokenizer(artifacts, card, tokenizer_file)
    with ExitStack() as stack:
        scratch = None
        if depth != "fast":
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-check-")))
            stack.enter_context(disk_full_as_failure(scratch))
        prints = {name: _Prints(scratch, name) for name in card.splits} if scratch else {}
        for one in prints.values():
            stack.callback(one.close)
        for name, split in card.splits.items():
            _split(found, name, split, prints.get(name))
        for name in prints:
            _repeats(found, name, prints)
    _documents_of_card(found)
    found.findings += Alarms(found).all()
    return found


def _tokenizer(artifacts: Path, card: DatasetCard, tokenizer_file: Path | None) -> list[Finding]:
    path = tokenizer_file or artifacts / card.tokenizer.file
    try:
        require_file(path, "the SentencePiece model that the shards were made with")
    except UserError as error:
        return [finding_of("tokenizer", error)]
    findings = []
    if (fingerprint := sha256_file(path)) != card.tokenizer.fingerprint:
        found = f"tokenizer {path} has fingerprint {fingerprint[:12]}, and the shards were made with "
        findings.append(
            _error(
                "tokenizer",
                found + card.tokenizer.fingerprint[:12],
                "the tokenizer that made the shards: with another one every token id means something else",
                f"use {artifacts / card.tokenizer.file}, or run data_prep again with the tokenizer you want",
            )
        )
    byte_ids = card.tokenizer.byte_ids or ()
    named = (card.tokenizer.eod_id, card.tokenizer.pad_id, card.tokenizer.unknown_id, *byte_ids)
    outside = [i for i in named if i is not None and not 0 <= i < card.tokenizer.vocab_size]
    if outside:
        found = f"the card names the id {outside[0]} for a special piece"
        findings.append(_error("card", found, f"ids below the vocabulary's {card.tokenizer.vocab_size}", _COPY))
    return findings


class _Prints:
    """The fingerprints of one split."""

    def __init__(self, scratch: Path, name: str) -> None:
        safe = name.replace("/", "-")
        self.whole = FingerprintFile(scratch / f"{safe}.whole")
        self.beginnings = FingerprintFile(scratch / f"{safe}.beginnings")

    def close(self) -> None:
        self.whole.close()
        self.beginnings.close()


def _split(found: Examination, name: str, split: SplitCard, prints: _Prints | None) -> None:
    """Everything about one split; what cannot be opened is not looked at further."""
    try:
        shard = Shard(found.folder / split.prefix)
    except UserError as error:
        found.findings.append(finding_of(name, error))
        return
    facts = found.splits[name] = SplitFacts(shard.documents, len(shard.tokens))
    structure = _structure(shard, name, split, found.depth)
    found.findings += structure
    if shard.dtype.kind not in "iu":
        return
    tokenizer = found.card.tokenizer
    if prints:
        scan = scan_all(shard, tokenizer.vocab_size, tokenizer.eod_id, prints.whole, prints.beginnings)
        prints.close()
        facts.empty_documents = scan.empty
    else:
        scan = scan_sample(shard, tokenizer.vocab_size, tokenizer.eod_id)
    _rates(facts, split, scan, found.card)
    found.findings += _ids(shard, name, scan, found.card)


def _structure(shard: Shard, name: str, split: SplitCard, depth: Depth) -> list[Finding]:
    findings = []
    if (shard.documents, len(shard.tokens)) != (split.documents, split.tokens):
        at = f"{name}: {shard.documents} documents and {len(shard.tokens)} tokens in {shard.bin_path}"
        expected = f"{split.documents} documents and {split.tokens} tokens, as the card says"
        findings.append(_error(name, at, expected, _COPY))
    if shard.dtype.kind not in "iu":
        findings.append(_error(name, f"{shard.idx_path}: tokens of dtype {shard.dtype}", "whole numbers", _COPY))
    if not _boundaries_follow(shard, depth):
        at = f"{shard.idx_path}: its document boundaries do not say that every sequence is one document"
        findings.append(_error(name, at, f"the numbers from 0 to {shard.documents}", _COPY))
    if depth == "thorough" and shard.digests() != (split.sha256_bin, split.sha256_idx):
        at = f"{shard.prefix}.bin/.idx differ from the SHA-256 in the card"
        findings.append(_error(name, at, "the files that data_prep wrote", _COPY))
    return findings


def _boundaries_follow(shard: Shard, depth: Depth) -> bool:
    """Whether the index ends with 0, 1, ..., n; fast: as far as its size and its last number tell."""
    count = shard.documents + 1
    offset = _INDEX_HEADER_BYTES + 12 * shard.documents
    if shard.idx_path.stat().st_size != offset + 8 * count:
        return False
    stored = np.memmap(shard.idx_path, np.dtype("<i8"), "r", offset, (count,))
    starts = [max(0, count - _PART)] if depth == "fast" else range(0, count, _PART)
    return all(
        np.array_equal(stored[start : start + _PART], np.arange(start, min(start + _PART, count))) for start in starts
    )


def _rates(facts: SplitFacts, split: SplitCard, scan: Scan, card: DatasetCard) -> None:
    """Of all tokens, or of the sample."""
    total = int(scan.counts.sum())
    text_tokens = facts.tokens - (facts.documents if card.eod_per_document else 0)
    if text_tokens > 0 and facts.tokens == split.tokens:
        facts.bytes_per_token = split.text_bytes / text_tokens
    if not total:
        return
    shares = scan.counts[scan.counts > 0] / total
    facts.entropy_bits = float(-(shares * np.log2(shares)).sum()) + 0.0
    if card.tokenizer.unknown_id is not None and card.tokenizer.unknown_id < len(scan.counts):
        facts.unknown_rate = int(scan.counts[card.tokenizer.unknown_id]) / total
    if card.tokenizer.byte_ids is not None:
        first, last = card.tokenizer.byte_ids
        facts.byte_rate = int(scan.counts[first : last + 1].sum()) / total


def _ids(shard: Shard, name: str, scan: Scan, card: DatasetCard) -> list[Finding]:
    findings = []
    largest = int(np.iinfo(shard.dtype).max)
    if card.tokenizer.vocab_size - 1 > largest:
        at = f"{name}: {shard.idx_path} keeps tokens as {shard.dtype}, which ends at {largest}, and the vocabulary has "
        at += f"{card.tokenizer.vocab_size} ids"
        findings.append(_error(name, at, "a dtype that holds every id of the vocabulary", _REMAKE))
    if scan.outside is not None:
        at = f"{name}: token id {int(shard.tokens[scan.outside])} at position {scan.outside} of {shard.bin_path}"
        findings.append(_error(name, at, f"ids below the vocabulary's {card.tokenizer.vocab_size}", _REMAKE))
    if card.eod_per_document and scan.no_end is not None:
        last = int(shard.document(scan.no_end)[-1])
        at = f"{name}: {scan.without_end} documents without an end token; number {scan.no_end} ends with {last}"
        findings.append(_error(name, at, f"the end token {card.tokenizer.eod_id} after every document", _REMAKE))
    return findings


def _repeats(found: Examination, name: str, prints: dict[str, _Prints]) -> None:
    """Documents that come twice, in the split or in the training split too."""
    mine, train = prints[name], prints.get(TRAIN)
    if not mine.whole.count:
        return
    facts = found.splits[name]
    facts.repeated_share = repeated(mine.whole) / mine.whole.count
    if train is None or train is mine or not train.whole.count:
        return
    facts.leaked_share = shared(mine.whole, train.whole) / mine.whole.count
    if mine.beginnings.count:
        facts.near_leaked_share = shared(mine.beginnings, train.beginnings) / mine.beginnings.count


def _documents_of_card(found: Examination) -> None:
    total = sum(split.documents for split in found.card.splits.values())
    if total != found.card.documents_out:
        at = f"the card counts {found.card.documents_out} documents after all blocks, and {total} in its splits"
        found.findings.append(Finding("card", "warning", at, "the same number", _COPY))


def _error(where: str, found: str, expected: str, action: str) -> Finding:
    return Finding(where, "error", found, expected, action)
