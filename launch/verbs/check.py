"""`slipway check`: examine a dataset before any accelerator starts, and name what is wrong with it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.run.directory import RunDirectory
from kit.run.manifest import parent_path
from kit.tokens.card import CARD_NAME
from kit.tokens.examine import examine
from kit.tokens.findings import Depth, Examination, SplitFacts
from launch.console import Console, table
from launch.verbs.arguments import Answer, add_run_argument, chosen_run

HELP = "check a dataset: indexes, counts, tokenizer, ids, repeated and leaked documents"
EXAMPLES = """examples:
  slipway check --last
  slipway check last:data_prep --thorough
  slipway check 20260101-120000-data_prep-demo-1a2b --fast
  slipway check path/of/a/folder/with/a/card --json

exit codes: 0 no errors (warnings don't count), 1 errors (the table names them), 2 wrong input."""
_PARENT = "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_run_argument(parser)
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--fast", action="store_true", help="a sample of the tokens only, as training does at its start")
    depth.add_argument("--thorough", action="store_true", help="also the SHA-256 of every shard file")


def execute(arguments: argparse.Namespace, console: Console) -> Answer:
    """Examine the dataset and print what was found."""
    depth: Depth = "fast" if arguments.fast else "thorough" if arguments.thorough else "full"
    found = examine(_folder(arguments), None, depth)
    for line in _lines(found):
        console.say(line)
    return Answer(1 if found.errors else 0, _data(found))


def _folder(arguments: argparse.Namespace) -> Path:
    """The folder with the card: as given, or of the run, of the chain's data stage, or of the run's parent."""
    given = Path(arguments.run) if arguments.run else None
    if given and not arguments.last and given.is_dir() and (given / CARD_NAME).is_file():
        return given
    if given and not arguments.last and given.is_dir() and not (given / "manifest.json").is_file():
        raise _no_card(given)
    run = chosen_run(arguments)
    manifest = run.manifest()
    places = [run.artifacts, *(RunDirectory(Path(stage.path)).artifacts for stage in manifest.stages)]
    if _PARENT in manifest.parents:
        places.append(parent_path(run, manifest.parents[_PARENT]) / "artifacts")
    for place in places:
        if (place / CARD_NAME).is_file():
            return place
    raise _no_card(run.artifacts)


def _no_card(folder: Path) -> UserError:
    return UserError(
        f"no {CARD_NAME} in {folder}",
        expected="a finished run of data_prep, a chain or run that has one, or a folder with shards and their card",
        action="see the runs with `slipway status`; make data with `slipway run data_prep/demo`",
    )


def _lines(found: Examination) -> list[str]:
    """Splits, findings, verdict."""
    header = (
        "SPLIT",
        "DOCUMENTS",
        "TOKENS",
        "BYTES/TOKEN",
        "ENTROPY",
        "UNKNOWN",
        "BYTES",
        "REPEATED",
        "LEAKED",
        "NEAR",
    )
    lines = [f"Dataset: {found.folder}", "", table(header, [_row(name, facts) for name, facts in found.splits.items()])]
    if found.depth == "fast":
        lines.append("Fast: rates and entropy are of a sample; documents were not compared.")
    lines.append("")
    if not found.findings:
        return [*lines, "Nothing is wrong."]
    order = sorted(found.findings, key=lambda finding: finding.level)
    rows: list[tuple[str, ...]] = [(one.level, one.found, one.expected, one.action) for one in order]
    return [*lines, table(("LEVEL", "FOUND", "EXPECTED", "DO"), rows)]


def _row(name: str, facts: SplitFacts) -> tuple[str, ...]:
    shares = (facts.unknown_rate, facts.byte_rate, facts.repeated_share, facts.leaked_share, facts.near_leaked_share)
    return (
        name,
        f"{facts.documents:,}",
        f"{facts.tokens:,}",
        "-" if facts.bytes_per_token is None else f"{facts.bytes_per_token:.2f}",
        "-" if facts.entropy_bits is None else f"{facts.entropy_bits:.2f} bits",
        *("-" if share is None else f"{100 * share:.3g} %" for share in shares),
    )


def _data(found: Examination) -> dict[str, Any]:
    """For --json."""
    return {
        "healthy": not found.errors,
        "folder": str(found.folder),
        "depth": found.depth,
        "name": found.card.name,
        "created_by": found.card.created_by,
        "tokenizer": found.card.tokenizer.fingerprint,
        "findings": [finding.as_data() for finding in found.findings],
        "splits": {name: facts.as_data() for name, facts in found.splits.items()},
    }
