"""Puts a report together: headline cards first, then the sections in the order a reader asks for them."""

from typing import Any

from reports.cards import headline_cards
from reports.document import Report, Section
from reports.sections.answers import answers_section
from reports.sections.cost import cost_section
from reports.sections.data import data_section
from reports.sections.efficiency import efficiency_section
from reports.sections.evaluation import evaluation_section
from reports.sections.lineage import lineage_section, problem
from reports.sections.reproduce import reproduce_section
from reports.sections.reward import reward_section
from reports.sections.rlhf import rlhf_section
from reports.sections.sft import sft_section
from reports.sections.training import training_section
from reports.story import Story

KIND_OF_REPORT = {"chain": "Chain report", "data_prep": "Data report"}
STUDY = "Scaling study"
OWN_SECTION = {"data_prep": "data", "pretrain": "training", "zero": "training", "evaluate": "evaluation"}
SECTIONS = (
    lineage_section,
    answers_section,
    sft_section,
    reward_section,
    rlhf_section,
    evaluation_section,
    training_section,
    data_section,
    cost_section,
    efficiency_section,
    reproduce_section,
)


def compose(story: Story, summary: dict[str, Any]) -> Report:
    """Returns the report of a run or a chain; stages that are absent leave out their section."""
    subject = story.subject
    sections = [section for build in SECTIONS if (section := build(story, summary))]
    own = OWN_SECTION.get(subject.stage, subject.stage)
    first = ("scaling",) if story.study else ("lineage", own)  # a run's report tells of that run first
    sections.sort(key=lambda section: section.id not in first)
    return Report(
        title=subject.manifest.name,
        subtitle=f"{STUDY if story.study else KIND_OF_REPORT.get(subject.stage, 'Run report')} · {subject.id}",
        state=subject.state,
        cards=headline_cards(summary),
        sections=[*_notices(story), *sections],
    )


def _notices(story: Story) -> list[Section]:
    runs = {facts.id: facts for facts in [story.subject, *[e.facts for e in story.entries if e.facts]]}
    notices = [notice for facts in runs.values() if (notice := problem(facts))]
    return [Section("notices", "Not finished", "", notices)] if notices else []
