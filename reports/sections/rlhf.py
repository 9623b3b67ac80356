"""The alignment section: reward and KL over the steps, the rule reward before and after, and who wins."""

from collections.abc import Sequence
from typing import Any

from reports.answers import answers_table
from reports.document import NOT_MEASURED, Block, Cell, Column, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, rows_of
from reports.figures.alignment import Curve, before_after, outcomes, over_steps
from reports.formats import chance, fixed, percent, plural, probability, whole
from reports.sections.training import loss_figure
from reports.story import Story

ALGORITHMS = {
    "ppo": "Proximal policy optimisation (PPO): the model's own answers, scored, with a leash to its parent",
    "dpo": "Direct preference optimisation (DPO): pairs of a chosen and a rejected answer, no sampling",
    "grpo": "Group relative policy optimisation (GRPO): groups of answers, each against its group's mean",
}
# Metrics of a step -> the curve's name; of each group those are drawn that the algorithm recorded.
REWARDS = {"rule_reward": "rule reward", "reward": "reward"}
KL = {"kl_nats_per_answer": "KL", "kl_per_answer": "KL", "kl": "KL"}
PREFERENCES = {"reward_accuracy": "pairs ranked right"}
MARGINS = {"reward_margin": "margin"}
NUMBERS = (
    ("rule_reward_before", "rule reward of the parent, greedy", fixed(3)),
    ("rule_reward_after", "rule reward after, greedy", fixed(3)),
    ("rule_reward_attainable", "highest attainable", fixed(2)),
    ("rule_reward_share_of_attainable", "share of the way there", percent),
    ("rule_reward_sampled_before", "rule reward of the parent, sampled", fixed(3)),
    ("rule_reward_sampled_after", "rule reward after, sampled", fixed(3)),
    ("kl_nats_per_answer", "KL from the parent, nats per answer", fixed(3)),
    ("rlhf_prompts", "held-out prompts", whole),
    ("win_rate", "win rate over the parent, ties half", percent),
    ("win_p_value", "p-value of the sign test", probability),
)
COLUMNS = (Column("quantity", "quantity"), Column("value", "value", numeric=True))


def rlhf_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on alignment, or None where there was none."""
    facts = story.newest("rlhf")
    if facts is None:
        return None
    if not facts.rlhf:
        missing = "The rlhf run wrote no result: it did not finish."
        return Section("rlhf", "Alignment", "", [Paragraph(missing, tone="notice"), *_curves(facts)])
    blocks: list[Block] = [*_before_after(summary), *_win(summary), *_curves(facts)]
    if facts is not story.training and not any(facts.curve(key) for key in REWARDS):
        blocks += loss_figure(facts, "rlhf-loss", "", caption="The loss that the algorithm minimises.")
    rows: list[list[Cell]] = []
    for key, label, show in NUMBERS:
        value = summary[key]
        rows.append([label, None if value is None else show(value)])
    blocks.append(Table("rlhf", "Outcome on held-out prompts", COLUMNS, rows))
    answers = rows_of(facts.rlhf.get("answers"))
    if answers:
        models = [("before", "before"), ("after", "after")]
        blocks.append(answers_table("rlhf_answers", "Held-out questions before and after", answers, models))
    lead = ALGORITHMS.get(str(summary["rlhf_algorithm"]), str(summary["rlhf_algorithm"] or ""))
    return Section("rlhf", "Alignment", f"{lead}." if lead else "", blocks)


def _before_after(summary: dict[str, Any]) -> list[Block]:
    before, after, top = (summary[f"rule_reward_{when}"] for when in ("before", "after", "attainable"))
    if before is None or after is None:
        return []
    moved = "rose" if after > before else "fell" if after < before else "stayed"
    title = (
        f"The rule reward {moved} from {before:.2f} to {after:.2f}"
        if moved != "stayed"
        else (f"The rule reward stayed at {after:.2f}")
    )
    share = summary["rule_reward_share_of_attainable"]
    title += f": {percent(share)} of what was attainable" if share is not None and share > 0 else ""
    rows = [("parent", before, fixed(3)(before)), ("aligned", after, fixed(3)(after))]
    mark = ("attainable", top) if top is not None else None
    caption = "Mean of the rules over greedy answers to held-out prompts, 0 to 1, alike before and after."
    return [Figure("rlhf-reward", title, before_after("rlhf-reward", rows, alt=title, top=mark), caption)]


def _win(summary: dict[str, Any]) -> list[Block]:
    rate, p_value = summary["win_rate"], summary["win_p_value"]
    if rate is None:
        return []
    wins, ties, losses = (summary[f"win_rate_{key}"] for key in ("wins", "ties", "losses"))
    title = f"Win rate over its parent: {percent(rate)}, ties counted half"
    words = win_words(wins, losses, ties, p_value)
    if None in (wins, ties, losses):
        return [Paragraph(f"{title}. {words}")]
    return [Figure("rlhf-wins", title, outcomes("rlhf-wins", int(wins), int(ties), int(losses), alt=title), words)]


def win_words(wins: Any, losses: Any, ties: Any, p_value: float | None) -> str:
    """Says what a win rate consists of and what its sign test means."""
    words = "Scored by the rules on the same prompts"
    if None not in (wins, losses, ties):
        words += f": {plural(int(wins), 'win')}, {plural(int(losses), 'loss')}, {plural(int(ties), 'tie')}"
    words += ". A tie counts half in the rate."
    if p_value is None:
        return f"{words} The p-value of the sign test: {NOT_MEASURED}."
    return f"{words} The sign test leaves ties out: two equally good models would differ so much {chance(p_value)}."


def _curves(facts: RunFacts) -> list[Block]:
    blocks: list[Block] = []
    groups = (
        ("rlhf-rewards", REWARDS, "mean reward of an answer", "Rewards of the answers sampled in each step."),
        (
            "rlhf-kl",
            _only_first(facts, KL),
            "KL from the parent (nats)",
            "How far the model has moved from its parent.",
        ),
        ("rlhf-preferences", PREFERENCES, "share of pairs", "Share of pairs whose chosen answer the model prefers."),
        ("rlhf-margins", MARGINS, "margin (nats)", "Implicit reward of the chosen answer over the rejected one's."),
    )
    for name, keys, measure, caption in groups:
        curves = [Curve(label, points) for key, label in keys.items() if (points := facts.curve(key))]
        if curves:
            title = _moved(curves)
            blocks.append(Figure(name, title, over_steps(name, curves, measure, alt=title), caption))
    return blocks


def _only_first(facts: RunFacts, keys: dict[str, str]) -> dict[str, str]:
    return dict([next(((key, label) for key, label in keys.items() if facts.curve(key)), ("", ""))])


def _moved(curves: Sequence[Curve]) -> str:
    """What the first curve did: its mean over the first and over the last tenth of the steps."""
    values = [value for _, value in curves[0].points]
    tenth = max(1, len(values) // 10)
    first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
    label = curves[0].label if curves[0].label.startswith("KL") else curves[0].label.capitalize()
    return f"{label} went from {first:.2f} to {last:.2f} in {plural(curves[0].points[-1][0], 'step')}"
