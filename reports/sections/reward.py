"""The reward model section: how often it ranks held-out pairs as the rule does."""

from typing import Any

from reports.answers import plain_prompt
from reports.document import Block, Cell, Column, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, number, rows_of
from reports.figures.alignment import Curve, before_after, over_steps
from reports.formats import fixed, percent, whole
from reports.sections.training import loss_figure
from reports.story import Story

NUMBERS = (
    ("pairs", "pairs to train on", whole),
    ("held_out_pairs", "pairs held out", whole),
    ("ties_dropped", "pairs dropped, both answers ranked alike", whole),
    ("accuracy_before", "held-out pairs ranked right before", percent),
    ("accuracy", "held-out pairs ranked right after", percent),
    ("margin", "mean margin, chosen over rejected", fixed(3)),
    ("loss_before", "held-out loss before, nats per pair", fixed(4)),
    ("loss_after", "held-out loss after, nats per pair", fixed(4)),
)
COLUMNS = (Column("quantity", "quantity"), Column("value", "value", numeric=True))
PAIR_COLUMNS = (
    Column("prompt", "question", prose=True),
    Column("chosen", "chosen by the rules", prose=True),
    Column("score_chosen", "score", fixed(2), numeric=True),
    Column("rejected", "rejected", prose=True),
    Column("score_rejected", "score", fixed(2), numeric=True),
)


def reward_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on the reward model, or None where there is none."""
    facts = story.newest("reward")
    if facts is None:
        return None
    if not facts.reward:
        missing = "The reward run wrote no result: it did not finish."
        return Section("reward", "Reward model", "", [Paragraph(missing, tone="notice")])
    blocks: list[Block] = [*_accuracy(facts, summary)]
    if facts is not story.training:
        blocks += loss_figure(
            facts, "reward-loss", "nats per pair", caption="Bradley–Terry: −log σ(chosen − rejected)."
        )
    rows: list[list[Cell]] = []
    for key, label, show in NUMBERS:
        value = summary[f"reward_{key}"]
        rows.append([label, None if value is None else show(value)])
    blocks.append(Table("reward", "Pairs and ranking", COLUMNS, rows))
    blocks += _pairs(facts)
    return Section("reward", "Reward model", _lead(facts), blocks)


def _accuracy(facts: RunFacts, summary: dict[str, Any]) -> list[Block]:
    after, before = summary["reward_accuracy"], summary["reward_accuracy_before"]
    if after is None:
        return []
    title = f"The reward model ranks {percent(after)} of held-out pairs right"
    curve = facts.curve("accuracy")
    if len(curve) > 1:
        levels = [("chance", 0.5), ("held out, after", after)]
        svg = over_steps("reward-accuracy", [Curve("accuracy", curve)], "pairs ranked right", title, levels)
        return [Figure("reward-accuracy", title, svg, "Share of each step's training pairs that were ranked right.")]
    rows = [("before", before, percent(before))] if before is not None else []
    rows += [("after", after, percent(after))]
    svg = before_after("reward-accuracy", rows, alt=title, top=("chance", 0.5))
    return [Figure("reward-accuracy", title, svg, "Share of held-out pairs in which the chosen answer scores higher.")]


def _pairs(facts: RunFacts) -> list[Block]:
    pairs = rows_of(facts.reward.get("examples"))
    cells: list[list[Cell]] = [[_cell(row, column) for column in PAIR_COLUMNS] for row in pairs]
    note = "Scores are the reward model's, after training."
    title = "Held-out pairs, and what the reward model gives them"
    return [Table("reward_pairs", title, PAIR_COLUMNS, cells, note, absent="–")] if cells else []


def _cell(row: dict[str, Any], column: Column) -> Cell:
    return number(row.get(column.key)) if column.numeric else plain_prompt(row.get(column.key))


def _lead(facts: RunFacts) -> str:
    temperatures = facts.reward.get("temperatures")
    if isinstance(temperatures, list) and temperatures:
        told = " and ".join(str(value) for value in temperatures)
        return f"Pairs are two answers of the tuned model, sampled at temperatures {told} and ranked by the rules."
    return "Pairs of a chosen and a rejected answer; the model learns to score the chosen one higher."
