"""Mixing by weight: copies by hash, sources by pattern."""

from datatrove.data import Document

from data_prep.blocks.config import MixConfig
from data_prep.blocks.mix import Mix
from data_prep.ledger import REASON

PAGES = 4000


def pages(file: str) -> list[Document]:
    return [Document(text=f"text {i}", id=f"{file}-{i}", metadata={"file": file}) for i in range(PAGES)]


def mix(documents: list[Document], weight: float, seed: int = 1, files: str = "a/*.gz") -> list[Document]:
    config = MixConfig.model_validate({"sources": {"first": {"files": files, "weight": weight}}, "seed": seed})
    return list(Mix(config).run(iter(documents)))


def test_a_quarter_is_a_quarter_and_always_the_same() -> None:
    documents = pages("a/x.gz")
    chosen = [item.id for item in mix(documents, 0.25)]
    assert abs(len(chosen) / PAGES - 0.25) < 0.03
    assert [item.id for item in mix(pages("a/x.gz"), 0.25)] == chosen
    assert [item.id for item in mix(pages("a/x.gz"), 0.25, seed=2)] != chosen
    assert {item.metadata[REASON] for item in documents if item.id not in set(chosen)} == {"not_sampled"}


def test_more_weight_keeps_what_less_weight_kept() -> None:
    less, more = ({item.id for item in mix(pages("a/x.gz"), weight)} for weight in (0.2, 0.6))
    assert less < more


def test_two_and_a_half_gives_two_or_three_copies() -> None:
    found = mix(pages("a/x.gz"), 2.5)
    assert abs(len(found) / PAGES - 2.5) < 0.04
    assert sum("copy" not in item.metadata for item in found) == PAGES
    assert {item.metadata.get("copy", 0) for item in found} == {0, 1, 2}
    found[0].text = "changed"
    assert found[1].text != "changed"


def test_sources_by_pattern_the_first_that_matches() -> None:
    config = MixConfig.model_validate(
        {"sources": {"none": {"files": "b/old-*", "weight": 0}, "twice": {"files": "b/*", "weight": 2}}}
    )
    documents = [Document(text="t", id=file, metadata={"file": file}) for file in ("b/old-1", "b/new", "c/other")]
    documents.append(Document(text="t", id="no file", metadata={}))
    found = [(item.id, item.metadata.get("source")) for item in Mix(config).run(iter(documents))]
    assert found == [("b/new", "twice"), ("b/new", "twice"), ("c/other", None), ("no file", None)]
