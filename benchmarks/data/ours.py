"""Our side: the text part of a data preparation run, from WARC to deduplicated text, or one stage of it.

    python -m benchmarks.data.ours chain|texts|STAGE --work DIR WARC...

`chain` runs the steps of `slipway run` before the tokenizer, one task, one worker, the papers' thresholds. `texts`
writes the extracted text of every page, for the measurement of deduplication. A stage runs alone over what
`peer_chain.py prepare` wrote into DIR. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from benchmarks.data.measured import cpu_seconds
from data_prep.blocks.store import LoadDocuments
from data_prep.config import DataPrepConfig
from data_prep.executors.hosts import Hosts
from data_prep.executors.local import LocalExecutor
from data_prep.inputs import find_inputs
from data_prep.ledger import Metered, read_ledger
from data_prep.steps import Places, Step, text_steps
from kit.config import parse

LANGUAGES = ["en", "fr", "de", "es"]
WARM_UP_PAGES = 8
FILTERS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


def steps_for(arguments: argparse.Namespace, **changes: Any) -> tuple[list[Step], Places]:
    """The steps of a run over the files of the command line."""
    recipe = {
        "name": "benchmark",
        "input": {"paths": [str(path) for path in arguments.warc]},
        "tasks": 1,
        "workers": 1,
        "languages": {"keep": LANGUAGES},
    }
    config = parse(DataPrepConfig, recipe | changes, "the benchmark's recipe")
    places = Places(arguments.work)
    files, _ = find_inputs(config.input.paths)
    return text_steps(config, files, places), places


def execute(steps: list[Step], places: Places) -> None:
    """Runs steps in this process, one after the other."""
    executor = LocalExecutor(1, Hosts())
    for step in steps:
        executor.execute(step.blocks, step.tasks, places.work / "steps" / step.name, lambda done, total: None)


def inner(steps: list[Step], *names: str) -> list[PipelineStep]:
    """Blocks by their names in the funnel, without the meter around them."""
    metered = [block for step in steps for block in step.blocks if isinstance(block, Metered)]
    return [block.block for block in metered if block.name in names]


def chain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything; counts pages read and kept."""
    steps, places = steps_for(arguments)
    execute(steps, places)
    blocks = {block.name: block for block in read_ledger(places.ledger)}
    kept = sum(1 for path in places.final.glob("*.jsonl") for _ in path.open(encoding="utf-8"))
    funnel = {name: [block.documents_in, block.documents_out] for name, block in blocks.items()}
    return {"pages": blocks["read"].documents_out, "kept": kept, "funnel": funnel}


def texts(arguments: argparse.Namespace) -> dict[str, Any]:
    """The text of every page, kept or not."""
    steps, _ = steps_for(arguments)
    path = arguments.work / "all-texts.jsonl"
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for document in _stream([steps[0].blocks[0], *inner(steps, "read", "extract")]):
            facts = {"id": document.id, "text": document.text, "url": document.metadata["url"]}
            file.write(json.dumps(facts, ensure_ascii=False) + "\n")
            count += 1
    return {"documents": count, "path": str(path)}


def _stream(blocks: list[PipelineStep], documents: Iterator[Document] | None = None) -> Iterator[Document]:
    stream: Any = documents
    for block in blocks:
        stream = block.run(stream, 0, 1)
    yield from stream


def load(path: Path) -> list[Document]:
    """Documents that the peer prepared."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    # What its reader says of a page; ours says more, and extraction asks whether it is a response.
    facts = {"file": "", "kind": "response"}
    return [
        Document(row["text"], row["id"], metadata={**facts, "url": row["url"], "language": row["language"]})
        for row in rows
    ]


def timed(blocks: list[PipelineStep], documents: list[Document]) -> dict[str, Any]:
    """Pages and CPU seconds of blocks in a row, after a warm-up that loads what they load late."""
    warm_up = [Document(d.text, d.id, metadata=dict(d.metadata)) for d in documents[:WARM_UP_PAGES]]
    for _ in _stream(blocks, iter(warm_up)):
        pass
    began = cpu_seconds()
    for _ in _stream(blocks, iter(documents)):
        pass
    return {"pages": len(documents), "cpu_seconds": cpu_seconds() - began}


def stage_read(arguments: argparse.Namespace) -> dict[str, Any]:
    """WARC to HTML."""
    steps, _ = steps_for(arguments)
    blocks = [steps[0].blocks[0], *inner(steps, "read")]
    for _ in itertools.islice(_stream(blocks), WARM_UP_PAGES):
        pass
    began = cpu_seconds()
    pages = sum(1 for _ in _stream(blocks))
    return {"pages": pages, "cpu_seconds": cpu_seconds() - began}


def stage_extract(arguments: argparse.Namespace) -> dict[str, Any]:
    """HTML to text."""
    return timed(inner(steps_for(arguments)[0], "extract"), load(arguments.work / "html.jsonl"))


def stage_language(arguments: argparse.Namespace) -> dict[str, Any]:
    """Language identification."""
    return timed(inner(steps_for(arguments)[0], "language"), load(arguments.work / "texts.jsonl"))


def stage_filters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The four quality filters."""
    blocks = inner(steps_for(arguments)[0], *FILTERS)
    documents = load(arguments.work / "texts.jsonl")
    warm = [Document("One line.", "0", metadata={"language": language}) for language in LANGUAGES]
    for _ in _stream(blocks[:1], iter(warm)):  # loads the language's words, whatever the filters drop
        pass
    return timed(blocks, documents)


def stage_minhash(arguments: argparse.Namespace) -> dict[str, Any]:
    """Near-duplicates, with reading the text from disk and writing it."""
    documents = load(arguments.work / "texts.jsonl")
    _deduplicate(arguments, "warm", documents[:WARM_UP_PAGES])
    return {"pages": len(documents), "cpu_seconds": _deduplicate(arguments, "all", documents)}


def _deduplicate(arguments: argparse.Namespace, folder: str, documents: list[Document]) -> float:
    """CPU seconds of the steps after the filters, without exact duplicates."""
    arguments = argparse.Namespace(work=arguments.work / folder, warc=arguments.warc)
    (clean, *later), places = steps_for(arguments, dedup={"exact": False})
    source = places.work / "input"
    source.mkdir(parents=True)
    with (source / "00000.jsonl").open("w", encoding="utf-8") as file:
        for document in documents:
            row = {"id": document.id, "text": document.text, **document.metadata}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    # In place of all that is counted: the texts; what comes behind it writes signatures and stores the text.
    counted = max(place for place, block in enumerate(clean.blocks) if isinstance(block, Metered))
    clean.blocks[: counted + 1] = [LoadDocuments(source)]
    began = cpu_seconds()
    execute([clean, *later], places)
    return cpu_seconds() - began


COMMANDS = {
    "chain": chain,
    "texts": texts,
    "read": stage_read,
    "extract": stage_extract,
    "language": stage_language,
    "filters": stage_filters,
    "minhash": stage_minhash,
}


def main() -> int:
    """Runs one command and prints its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.ours", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("warc", nargs="+", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    logger.remove()
    print(json.dumps(COMMANDS[arguments.command](arguments)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
