"""The measurements of single parts, each a program and a process of its own, gathered under the names of the result."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data.measured import run
from kit.errors import RunFailure


class Part(NamedTuple):
    """One program of this folder.

    Attributes:
        name: benchmarks/data/NAME.py; its last line is a JSON object.
        arguments: its command line.
        needs: files or folders without which it is left out.
    """

    name: str
    arguments: list[str]
    needs: list[Path]


# Part -> key of the result -> the part's own key.
TAKEN = {
    "extraction": {
        "extraction_f1": "extraction_f1",
        "extraction_f1_trafilatura": "extraction_f1_trafilatura",
        "extraction_f1_mean": "mean",
        "extraction_f1_mean_trafilatura": "mean_trafilatura",
        "extraction_speed_ratio": "speed_ratio",
    },
    "filters": {
        "filter_agreement": "filter_agreement",
        "reason_agreement": "reason_agreement",
        "filter_speed_ratio": "speed_ratio",
    },
    "dedup": {
        "dedup_recall": "dedup_recall",
        "dedup_precision": "dedup_precision",
        "dedup_speed_ratio": "speed_ratio",
    },
    "languages": {"language_accuracy": "language_accuracy", "language_coverage": "coverage"},
    "encode": {"encode_ratio": "encode_ratio", "encode_identical": "identical"},
}


def parts(data: Path, documents: Path, truth: Path | None) -> list[Part]:
    """The programs, where their inputs lie.

    Args:
        data: a folder with extraction_gold/ and langid/.
        documents: extracted texts of the corpus, one JSON object a line.
        truth: the corpus's truth file; None leaves the recall of deduplication out.
    """
    gold, sentences = data / "extraction_gold", data / "langid" / "tatoeba_long.txt"
    copies = [] if truth is None else ["--truth", str(truth)]
    return [
        Part("extraction", ["--gold", str(gold)], [gold]),
        Part("filters", ["--data", str(data)], []),
        Part("languages", [str(sentences)], [sentences]),
        Part("encode", [], []),
        Part("dedup", ["--documents", str(documents), *copies], [documents]),
    ]


def gather(chosen: list[Part]) -> dict[str, Any]:
    """Runs them; every key of the result is there, null where a part was not run.

    A part that fails costs its own numbers alone: why is under `left_out`.
    """
    result: dict[str, Any] = {key: None for taken in TAKEN.values() for key in taken}
    left_out = dict.fromkeys(TAKEN, "not asked for")
    for part in chosen:
        found, why = _run(part)
        result |= {key: found.get(own) for key, own in TAKEN[part.name].items()}
        left_out[part.name] = why
        print(f"{part.name}: {why or 'done'}", flush=True)
    return result | {"left_out": {name: why for name, why in left_out.items() if why}}


def _run(part: Part) -> tuple[dict[str, Any], str]:
    module = f"benchmarks.data.{part.name}"
    if importlib.util.find_spec(module) is None:
        return {}, "no such program"
    missing = [path.name for path in part.needs if not path.exists()]
    if missing:
        return {}, f"no {', '.join(missing)} here (see --data)"
    try:
        return run([sys.executable, "-m", module, *part.arguments]).result, ""
    except RunFailure as error:
        return {}, error.found
