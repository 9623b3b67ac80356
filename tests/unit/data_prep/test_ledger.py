"""The funnel's one mechanism."""

from collections.abc import Iterator
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.ledger import EXAMPLES_PER_REASON, PAYLOAD, REASON, Metered, read_ledger


class KeepShort(PipelineStep):
    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            if len(document.text) > 3:
                document.metadata[REASON] = "long"
            elif document.text != "no":
                document.text += "!"
                yield document


def documents(*texts: str) -> Iterator[Document]:
    return iter([Document(text=text, id=f"d{n}", metadata={"url": "u"}) for n, text in enumerate(texts)])


def test_counts_documents_bytes_and_reasons(tmp_path: Path) -> None:
    for rank in range(2):
        block = Metered(KeepShort(), "short", tmp_path, 1, default_reason="unsaid")
        kept = list(block.run(documents("a", "éé", "no", *["toolong"] * 3), rank, 2))
        assert [document.text for document in kept] == ["a!", "éé!"]
    (card,) = read_ledger(tmp_path)
    assert (card.documents_in, card.documents_out) == (12, 4)
    assert card.dropped == {"long": 6, "unsaid": 2}
    assert card.documents_in == card.documents_out + sum(card.dropped.values())
    assert card.bytes_in == 2 * (1 + 4 + 2 + 21)
    assert card.bytes_out == 2 * (2 + 5)
    assert len(card.examples["long"]) == EXAMPLES_PER_REASON
    assert card.examples["unsaid"][0].model_dump() == {"id": "d2", "url": "u", "text": "no"}
    assert card.cpu_seconds is not None and card.cpu_seconds >= 0


def test_blocks_come_in_pipeline_order_and_payloads_count(tmp_path: Path) -> None:
    for position, name in ((10, "last"), (2, "first")):
        block = Metered(KeepShort(), name, tmp_path, position)
        list(block.run(iter([Document(text="", id="x", metadata={PAYLOAD: b"12345"})])))
    first, last = read_ledger(tmp_path)
    assert (first.name, last.name) == ("first", "last")
    assert first.bytes_in == 5


def test_an_empty_ledger_is_empty(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "missing") == []
