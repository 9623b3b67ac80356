"""The evaluation section: held-out bits per byte before and after, against a unigram model, and generated text."""

from typing import Any

from reports.document import Block, Cell, Column, Excerpt, Excerpts, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, number, rows_of
from reports.figures.evaluation import bits_per_byte
from reports.formats import fixed, percent, plural, probability, whole
from reports.stages import tasks_of
from reports.story import Story

MODELS = (("untrained model", "_untrained"), ("unigram model", "_unigram"), ("trained model", ""))
COLUMNS = (
    Column("model", "model"),
    Column("bits_per_byte", "bits per byte", fixed(3), numeric=True),
    Column("perplexity", "perplexity per token", fixed(2), numeric=True),
)


COMPARISON_COLUMNS = (
    Column("second", "model"),
    Column("first", "against"),
    Column("win_rate", "win rate", percent, numeric=True),
    Column("wins", "wins", whole, numeric=True),
    Column("losses", "losses", whole, numeric=True),
    Column("ties", "ties", whole, numeric=True),
    Column("p_value", "p-value", probability, numeric=True),
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
    blocks += _models_table(story.evaluate)
    blocks += _comparisons(story.evaluate)
    samples = [_sample(sample) for sample in found.get("samples") or []]
    if samples:
        blocks.append(Excerpts("Text the trained model wrote", samples))
    lead = f"{whole(found.get('tokens'))} tokens of held-out text ({whole(found.get('text_bytes'))} bytes)."
    title = "Held-out text and models compared" if rows_of(found.get("models")) else "Held-out text"
    return Section("evaluation", title, lead, blocks)


def _models_table(facts: RunFacts) -> list[Block]:
    """Every evaluated model beside the others: held-out text, tasks with standard error and chance, rule reward."""
    models = rows_of(facts.evaluation.get("models"))
    if not models:
        return []
    tasks = list(dict.fromkeys(task for model in models for task in tasks_of(model)))
    columns = [
        Column("name", "model"),
        Column("stage", "stage"),
        Column("bits_per_byte", "bits per byte", fixed(3), numeric=True),
        Column("perplexity", "perplexity", fixed(2), numeric=True),
    ]
    for task in tasks:
        columns += [Column(task, task, numeric=True), Column(f"{task}_stderr"), Column(f"{task}_samples")]
    columns += [Column("rule_reward", "rule reward", fixed(3), numeric=True), Column("run_id")]
    rows: list[list[Cell]] = []
    for model in models:
        line: list[Cell] = [str(model.get("name", "")), str(model.get("stage") or "") or None]
        line += [number(model.get("bits_per_byte")), number(model.get("perplexity"))]
        for task in tasks:
            found = tasks_of(model).get(task, {})
            line += [_with_error(found), number(found.get("stderr")), number(found.get("samples"))]
        line += [number(model.get("rule_reward")), str(model.get("run_id") or "") or None]
        rows.append(line)
    return [Table("models", "The models beside each other", columns, rows, _task_words(models, tasks), absent="–")]


def _with_error(task: dict[str, Any]) -> str | None:
    value, error = number(task.get("value")), number(task.get("stderr"))
    if value is None:
        return None
    return f"{fixed(3)(value)} ± {fixed(3)(error)}" if error is not None else fixed(3)(value)


def _task_words(models: list[dict[str, Any]], tasks: list[str]) -> str:
    """What each task counts, over how many questions, and what guessing gets."""
    words = []
    for task in tasks:
        found = next(tasks_of(model)[task] for model in models if task in tasks_of(model))
        samples, guess = number(found.get("samples")), number(found.get("chance"))
        told = f"{task}: {found.get('metric') or 'score'}"
        told += f" over {plural(int(samples), 'question')}" if samples else ""
        words.append(told + (f", guessing gets {fixed(2)(guess)}" if guess is not None else ""))
    lead = "Lower is better for bits per byte and perplexity, higher for the rest."
    return f"{lead} {'; '.join(words)}; ± one standard error." if words else lead


def _comparisons(facts: RunFacts) -> list[Block]:
    """Who beats whom on the same prompts, with the sign test's p-value."""
    rows: list[list[Cell]] = []
    for row in rows_of(facts.evaluation.get("comparisons")):
        numbers: list[Cell] = [number(row.get(key)) for key in ("win_rate", "wins", "losses", "ties", "p_value")]
        rows.append([str(row.get("second", "")), str(row.get("first", "")), *numbers])
    note = "Rule reward on the same held-out prompts. A tie counts half in the rate; the sign test leaves ties out."
    return [Table("comparisons", "Who beats whom", COMPARISON_COLUMNS, rows, note)] if rows else []


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
