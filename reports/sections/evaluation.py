"""The evaluation section: held-out bits per byte before and after, against a unigram model, and generated text."""

from typing import Any

from reports.document import Block, Cell, Column, Excerpt, Excerpts, Figure, Paragraph, Section, Table
from reports.facts import Story
from reports.figures.evaluation import bits_per_byte
from reports.formats import fixed, percent, whole

MODELS = (("untrained model", "_untrained"), ("unigram model", "_unigram"), ("trained model", ""))
COLUMNS = (
    Column("model", "model"),
    Column("bits_per_byte", "bits per byte", fixed(3), numeric=True),
    Column("perplexity", "perplexity per token", fixed(2), numeric=True),
)


def evaluation_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on held-out quality, or None where no evaluation belongs to the report."""
    if story.evaluate is None:
        return None
    found = story.evaluate.evaluation
    if not found:
        missing = "The evaluation wrote no result: it did not finish."
        return Section("evaluation", "Held-out text", "", [Paragraph(missing, tone="notice")])
    blocks: list[Block] = []
    measured = [(label, summary[f"bits_per_byte{suffix}"]) for label, suffix in MODELS]
    present = [(label, value) for label, value in measured if value is not None]
    if present:
        title = verdict(summary)
        blocks.append(Figure("bits", title, bits_per_byte(present, alt=title), str(found.get("convention", ""))))
    rows: list[list[Cell]] = [
        [label, summary[f"bits_per_byte{suffix}"], summary[f"perplexity{suffix}"]] for label, suffix in MODELS
    ]
    blocks.append(Table("evaluation", "Lower is better", COLUMNS, rows))
    samples = [_sample(sample) for sample in found.get("samples") or []]
    if samples:
        blocks.append(Excerpts("Text the trained model wrote", samples))
    lead = f"{whole(found.get('tokens'))} tokens of held-out text ({whole(found.get('text_bytes'))} bytes)."
    return Section("evaluation", "Held-out text", lead, blocks)


def verdict(summary: dict[str, Any]) -> str:
    """States what the bits per byte show, without claiming what was not measured."""
    trained, ratio = summary["bits_per_byte"], summary["bits_per_byte_ratio"]
    unigram = summary["bits_per_byte_unigram"]
    if trained is None:
        return "The trained model's bits per byte were not measured"
    words = f"The trained model needs {trained:.2f} bits a byte"
    words += f", {percent(ratio)} of the untrained one" if ratio else ""
    if unigram is not None:
        words += f" and {'less' if trained < unigram else 'not less'} than a unigram model"
    return words


def _sample(sample: dict[str, Any]) -> Excerpt:
    settings = ", ".join(
        f"{key.replace('_', ' ')} {value}" for key, value in sorted(sample.items()) if key not in ("prompt", "text")
    )
    prompt, text = str(sample.get("prompt", "")), str(sample.get("text", ""))
    return Excerpt(settings or "settings not recorded", text.removeprefix(prompt), prompt)
