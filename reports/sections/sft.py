"""The instruction tuning section: loss and right answers before and after, and what the answers look like."""

from typing import Any

from reports.answers import answers_table
from reports.document import Block, Cell, Column, Figure, Paragraph, Section, Table
from reports.facts import rows_of
from reports.figures.alignment import before_after
from reports.formats import fixed, percent, whole
from reports.sections.training import loss_figure
from reports.story import Story

COLUMNS = (Column("quantity", "quantity"), Column("value", "value", numeric=True))
NUMBERS = (
    ("pairs", "pairs to train on", whole),
    ("held_out_pairs", "pairs held out", whole),
    ("dropped_too_long", "left out, too long for the context", whole),
    ("trained_parameters", "parameters trained", whole),
    ("loss_before", "held-out loss before, nats per counted token", fixed(3)),
    ("loss_after", "held-out loss after", fixed(3)),
    ("reference_contained_before", "answers that contain the fact before", percent),
    ("reference_contained_after", "answers that contain the fact after", percent),
    ("merge_max_logit_difference", "largest logit difference, adapter and merged", lambda value: f"{value:.2g}"),
)


def sft_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on instruction tuning, or None where there was none."""
    facts = story.newest("sft")
    if facts is None:
        return None
    if not facts.sft:
        missing = "The sft run wrote no result: it did not finish."
        return Section("sft", "Instruction tuning", "", [Paragraph(missing, tone="notice")])
    blocks: list[Block] = [*_right_answers(summary), *_loss(story)]
    blocks.append(_numbers(summary))
    answers = rows_of(facts.sft.get("answers"))
    if answers:
        models = [("before", "before"), ("after", "after")]
        blocks.append(answers_table("sft_answers", "Held-out questions before and after", answers, models))
    return Section("sft", "Instruction tuning", _lead(summary), blocks)


def _right_answers(summary: dict[str, Any]) -> list[Block]:
    shares = [summary[f"sft_reference_contained_{when}"] for when in ("before", "after")]
    if None in shares:
        return []
    title = f"{percent(shares[1])} of held-out questions are answered with the fact, {percent(shares[0])} before"
    rows = [("before", shares[0], percent(shares[0])), ("after", shares[1], percent(shares[1]))]
    svg = before_after("sft-right", rows, alt=title, top=("all", 1.0))
    return [Figure("sft-right", title, svg, "An answer counts if it contains the words of the fact; greedy decoding.")]


def _loss(story: Story) -> list[Block]:
    """The loss curve, unless the report's training section shows it already."""
    facts = story.newest("sft")
    if facts is None or facts is story.training:
        return []
    return loss_figure(facts, "sft-loss", "nats per counted token", caption="Only the tokens of answers are counted.")


def _numbers(summary: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for key, label, show in NUMBERS:
        value = summary[f"sft_{key}"]
        if value is not None or key != "merge_max_logit_difference":  # only LoRA has something to merge
            rows.append([label, None if value is None else show(value)])
    return Table("sft", "Pairs, loss and answers", COLUMNS, rows)


def _lead(summary: dict[str, Any]) -> str:
    method, trained, every = (summary[f"sft_{key}"] for key in ("method", "trained_parameters", "parameters"))
    if not method:
        return ""
    words = {"lora": "LoRA", "full": "Full fine-tuning"}.get(str(method), str(method))
    if trained is not None and every and trained < every:
        words += f", which trains {whole(trained)} of {whole(every)} parameters"
    return f"{words} on questions and answers; the loss counts the tokens of answers alone."
