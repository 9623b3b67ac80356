"""The section that shows a model grow: one question, answered by the model of every stage."""

from typing import Any

from reports.answers import answers_table, contains, plain_prompt
from reports.document import Section
from reports.facts import rows_of
from reports.formats import plural
from reports.story import Story


def answers_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the table of the evaluation's prompts and every model's answers, or None where nobody was asked."""
    facts = story.evaluate
    asked = rows_of(facts.evaluation.get("answers")) if facts else []
    asked = [row for row in asked if isinstance(row.get("answers"), dict)]
    if facts is None or not asked:
        return None
    stage_of = {str(row.get("name")): str(row.get("stage") or "") for row in rows_of(facts.evaluation.get("models"))}
    names = list(dict.fromkeys([*stage_of, *[name for row in asked for name in row["answers"]]]))
    names = [name for name in names if any(name in row["answers"] for row in asked)]
    rows = [{"prompt": row.get("prompt"), "reference": row.get("reference"), **_keyed(row, names)} for row in asked]
    models = [(_key(place), _heading(name, stage_of.get(name, ""))) for place, name in enumerate(names)]
    right = [
        sum(contains(str(row["answers"].get(name, "")), plain_prompt(row.get("reference"))) for row in asked)
        for name in names
    ]
    counts = ", ".join(f"{label} {count}" for (_, label), count in zip(models, right, strict=True))
    title = f"{plural(len(asked), 'question')}, answered by {plural(len(names), 'model')}"
    lead = "The same questions to the model of every stage; each answers with its likeliest words."
    has_facts = any(plain_prompt(row.get("reference")) for row in asked)
    note = f"Right of {len(asked)}: {counts}." if has_facts else ""
    return Section(
        "answers", "How the answers grew", lead, [answers_table("answers", title, rows, models, note, rewards=False)]
    )


def _keyed(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Answers and rewards under keys that no model's name can turn into another column's."""
    answers, rewards = row["answers"], row.get("rewards")
    found = {_key(place): answers[name] for place, name in enumerate(names) if name in answers}
    for place, name in enumerate(names):
        if isinstance(rewards, dict) and name in rewards:
            found[f"reward_{_key(place)}"] = rewards[name]
    return found


def _key(place: int) -> str:
    return f"answer_{place + 1}"


def _heading(name: str, stage: str) -> str:
    """What a column is called: the parent that an evaluation calls `model` by its stage, the others by their names."""
    if name == "model" and stage:
        return stage
    return f"{name} ({stage})" if stage and stage != name else name
