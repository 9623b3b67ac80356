"""The dataset card of a run: the funnel, the languages, and fingerprints of inputs, tokenizer and configuration."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data_prep.blocks.read import CORRUPT_REASONS
from data_prep.blocks.store import read_all_stored
from data_prep.config import DataPrepConfig
from data_prep.inputs import CrawlFile, fingerprints
from data_prep.train_tokenizer import END_ID, PAD_ID, RESERVED
from kit.config import digest
from kit.errors import UserError
from kit.files import sha256_file
from kit.tokens.card import BlockCard, DatasetCard, InputCard, LanguageCard, SplitCard, TokenizerCard

TOKENIZER_FILE = "tokenizer/tokenizer.model"


def build_card(
    config: DataPrepConfig,
    run_id: str,
    artifacts: Path,
    documents: Path,
    blocks: list[BlockCard],
    files: list[CrawlFile],
    splits: dict[str, SplitCard],
) -> DatasetCard:
    """Put the card together.

    Args:
        config: the recipe.
        run_id: the run that makes the dataset.
        artifacts: its artifacts, with the tokenizer in place.
        documents: folder of the kept texts.
        blocks: the funnel, in order.
        files: the inputs.
        splits: the finished shards.
    """
    return DatasetCard(
        name=config.name,
        created_by=run_id,
        splits=splits,
        tokenizer=_tokenizer_card(config, artifacts),
        blocks=blocks,
        languages=_languages(documents),
        inputs=[InputCard(path=path, bytes=size, sha256=sha) for path, (size, sha) in fingerprints(files).items()],
        records_corrupt=corrupt_records(blocks[0]),
        config_digest=digest(config),
        documents_in=blocks[0].documents_in,
        documents_out=blocks[-1].documents_out,
    )


def corrupt_records(block: BlockCard) -> int:
    """Records of the reading block that were damaged."""
    return sum(block.dropped.get(reason, 0) for reason in CORRUPT_REASONS)


def check_survivors(blocks: list[BlockCard]) -> None:
    """See that something is left.

    Raises:
        UserError: nothing is; says what dropped most.
    """
    first, last = blocks[0], blocks[-1]
    if last.documents_out:
        return
    if first.documents_in == corrupt_records(first):
        what = f"all {first.documents_in} damaged" if first.documents_in else "none in it"
        raise UserError(
            f"input.paths: no page record could be read ({what})",
            expected="at least one readable WARC response, WET conversion or JSON line with a `text`",
            action="check the download (`gzip -t FILE`), or name other files",
        )
    block, reason, count = max(
        ((block.name, reason, count) for block in blocks for reason, count in block.dropped.items()),
        key=lambda drop: drop[2],
    )
    raise UserError(
        f"0 of {first.documents_in} documents survived: {count} were dropped by {block} ({reason})",
        expected="at least two documents that pass every filter",
        action=f"loosen {block} in the recipe, or give input in the languages that it keeps",
    )


def _tokenizer_card(config: DataPrepConfig, artifacts: Path) -> TokenizerCard:
    return TokenizerCard(
        kind=config.tokenizer.kind,
        vocab_size=config.tokenizer.vocab_size,
        fingerprint=sha256_file(artifacts / TOKENIZER_FILE),
        file=TOKENIZER_FILE,
        eod_id=END_ID,
        pad_id=PAD_ID,
        reserved=list(RESERVED),
    )


def _languages(documents: Path) -> dict[str, LanguageCard]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for document in read_all_stored(documents):
        language = document.metadata["language"]
        counts[language] += 1
        sizes[language] += len(document.text.encode())
    return {name: LanguageCard(documents=counts[name], bytes=sizes[name]) for name in sorted(counts)}
