"""Makes facts.jsonl: multiple choice over the facts of the instruction sample, in phrasings that the sample lacks.

    python -m recipes.evaluate.tasks.make_tasks --out recipes/evaluate/tasks/facts.jsonl

The wrong choices are true of other facts of the same kind, so that only knowing the fact helps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.instructions.sample.make_sample import TOPICS

SAMPLE = Path(__file__).resolve().parents[2] / "instructions" / "sample" / "demo.jsonl"
WRONG_CHOICES = 3

PHRASINGS = {
    "http_status": "Tell me the meaning of HTTP status {}.",
    "signal": "Tell me the meaning of the signal {}.",
    "errno": "Tell me the meaning of the error {}.",
    "exception": "Tell me the meaning of {} in Python.",
    "character": "Tell me the name of the character {}.",
    "html_entity": "Tell me the meaning of &{}; in HTML.",
}
"""One question a kind of fact; none is in the sample."""


def facts(sample: Path = SAMPLE) -> dict[str, dict[str, str]]:
    """Kind -> fact -> its value, as the sample has them."""
    found: dict[str, dict[str, str]] = {}
    for line in sample.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["topic"], {})[row["fact"]] = row["reference"]
    return found


def questions(sample: Path = SAMPLE) -> Iterator[dict[str, Any]]:
    """One question a fact: four sentences that differ in the value alone, and which of them is right."""
    sentences = {topic.name: topic.answer for topic in TOPICS}
    for kind, values in facts(sample).items():
        for fact, value in values.items():
            others = sorted(set(values.values()) - {value}, key=lambda other: _hash(kind, fact, other))
            choices = sorted([value, *others[:WRONG_CHOICES]], key=lambda choice: _hash("order", kind, fact, choice))
            yield {
                "question": PHRASINGS[kind].format(fact),
                "choices": [sentences[kind].format(fact, choice) for choice in choices],
                "gold": choices.index(value),
                "kind": kind,
            }


def content(sample: Path = SAMPLE) -> str:
    """The whole file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in questions(sample))


def _hash(*words: str) -> bytes:
    return hashlib.sha256("\0".join(words).encode()).digest()


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("facts.jsonl"))
    parser.parse_args().out.write_text(content(), encoding="utf-8")


if __name__ == "__main__":
    main()
