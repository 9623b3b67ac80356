"""The data pipeline measured against stock datatrove, and the quality of its parts; the last line is JSON.

    python -m benchmarks.data                   about half an hour on two cores
    python -m benchmarks.data --quick           a smoke test of a few minutes; its figures mean little
    python -m benchmarks.data --warc FILE...    on your own crawl files

What every key means is in docs/benchmarks-data.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data import end_to_end, parts, stages
from benchmarks.data.corpus import Corpus, build_corpus, own_corpus
from benchmarks.data.measured import ROOT, one_core, run
from benchmarks.data.sides import Sides
from benchmarks.program import measure_and_print
from infra import peer_environment

CACHE = ROOT / ".cache" / "bench-data"
# What needs a known truth or the gold texts is null where those are missing; these keys are there in any case.
UNMEASURED = dict.fromkeys(("peak_memory_gib", "linearity"))


class Size(NamedTuple):
    """How much is measured."""

    pages: int
    rounds: int
    larger: int
    stage_rounds: int
    stage_pages: int


FULL = Size(pages=2000, rounds=5, larger=10, stage_rounds=3, stage_pages=600)
QUICK = Size(pages=60, rounds=2, larger=3, stage_rounds=1, stage_pages=40)


def arguments_of(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    parser.add_argument("--pages", type=int, help=f"of the alternation ({FULL.pages}), before copies are added")
    parser.add_argument("--rounds", type=int, help=f"alternations ({FULL.rounds})")
    parser.add_argument("--scale", type=int, help="pages of the larger corpus (10 times as many; 0: none)")
    parser.add_argument("--seed", type=int, default=7, help="of the copies")
    parser.add_argument("--warc", type=Path, nargs="+", help="your own files; what needs a known truth is then null")
    parser.add_argument("--offline", action="store_true", help="the embedded sample instead of Debian packages")
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with extraction_gold/ and langid/"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="packages and corpora stay here")
    return parser.parse_args(given)


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything, as one flat object with a few nested ones."""
    size = QUICK if arguments.quick else FULL
    pages, rounds = arguments.pages or size.pages, arguments.rounds or size.rounds
    sides = Sides(peer_environment.require(), work)
    corpus = _corpus(arguments, pages)
    print(f"{corpus.pages or 'an unknown number of'} pages: {corpus.description}", flush=True)
    result: dict[str, Any] = {"benchmark": "data", "quick": arguments.quick, "corpus": corpus.description}
    with one_core():
        result |= end_to_end.measure(sides, corpus, rounds)
        result |= UNMEASURED | _larger(arguments, sides, pages, result)
        result["stages"] = stages.measure(sides, corpus, size.stage_rounds, size.stage_pages)
        result |= parts.gather(_parts(arguments, sides, corpus))
    return result


def _corpus(arguments: argparse.Namespace, pages: int) -> Corpus:
    if arguments.warc:
        return own_corpus(arguments.warc)
    # In a process of its own: what this one holds in memory would count as the peak of those that it starts.
    command = [sys.executable, "-m", "benchmarks.data.corpus", "--pages", str(pages), "--seed", str(arguments.seed)]
    run([*command, "--cache", str(arguments.cache), *(["--offline"] if arguments.offline else [])])
    return build_corpus(arguments.cache, pages, arguments.seed, offline=arguments.offline)


def _larger(arguments: argparse.Namespace, sides: Sides, pages: int, small: dict[str, Any]) -> dict[str, Any]:
    larger = QUICK.larger if arguments.quick else FULL.larger
    scale = larger * pages if arguments.scale is None else arguments.scale
    if arguments.warc or scale <= pages:
        return {"peak_memory_gib": small["peak_memory_gib_corpus"]}
    return end_to_end.linearity(sides, _corpus(arguments, scale), small)


def _parts(arguments: argparse.Namespace, sides: Sides, corpus: Corpus) -> list[parts.Part]:
    documents = Path(sides.ours("texts", "all-texts", corpus.names).result["path"])
    listed = parts.parts(arguments.data, documents, corpus.truth)
    return [part for part in listed if part.name == "dedup"] if arguments.quick else listed


def main(given: list[str]) -> int:
    """Measures and prints; the exit code of a SlipwayError after one."""
    arguments = arguments_of(given)
    arguments.cache = arguments.cache.resolve()
    return measure_and_print(arguments.cache, lambda folder: measure(arguments, folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
