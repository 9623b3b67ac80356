"""Puts a report together: headline cards first, then the sections in the order a reader asks for them."""

from typing import Any

from kit.flops import CONVENTIONS
from reports.document import NOT_MEASURED, Card, Report, Section
from reports.facts import Story
from reports.formats import counted, duration, fixed, flops, gibibytes, percent, plural, whole
from reports.sections.data import data_section
from reports.sections.efficiency import efficiency_section
from reports.sections.evaluation import evaluation_section
from reports.sections.lineage import lineage_section, problem
from reports.sections.reproduce import reproduce_section
from reports.sections.training import training_section

KIND_OF_REPORT = {"chain": "Chain report", "data_prep": "Data report"}
SECTIONS = (lineage_section, evaluation_section, training_section, data_section, efficiency_section, reproduce_section)


def compose(story: Story, summary: dict[str, Any]) -> Report:
    """Returns the report of a run or a chain; stages that are absent leave out their section."""
    subject = story.subject
    sections = [section for build in SECTIONS if (section := build(story, summary))]
    return Report(
        title=subject.manifest.name,
        subtitle=f"{KIND_OF_REPORT.get(subject.stage, 'Run report')} · {subject.id}",
        state=subject.state,
        cards=headline_cards(summary),
        sections=[*_notices(story), *sections],
    )


def _notices(story: Story) -> list[Section]:
    runs = {facts.id: facts for facts in [story.subject, *[e.facts for e in story.entries if e.facts]]}
    notices = [notice for facts in runs.values() if (notice := problem(facts))]
    return [Section("notices", "Not finished", "", notices)] if notices else []


def headline_cards(summary: dict[str, Any]) -> list[Card]:
    """Returns the cards on top; only what belongs to the report's stages, absent numbers said to be so."""
    cards = []
    if "bits_per_byte" in summary:
        cards.append(_quality_card(summary))
    if "documents_in" in summary:
        cards += _data_cards(summary)
    if "tokens_per_second" in summary:
        cards += _training_cards(summary)
    if "scaling" in summary:
        cards.append(_scaling_card(summary))
    if summary["seconds"] is not None:
        cards.append(Card("Time", duration(summary["seconds"]), _time_words(summary)))
    return cards


def _quality_card(summary: dict[str, Any]) -> Card:
    before, after, unigram = (summary[f"bits_per_byte{suffix}"] for suffix in ("_untrained", "", "_unigram"))
    note = "on held-out text"
    if summary["bits_per_byte_ratio"]:
        note += f"; {percent(summary['bits_per_byte_ratio'])} of the untrained model"
    note += f"; a unigram model needs {unigram:.2f}" if unigram is not None else ""
    return Card("Bits per byte", fixed(2)(after), note, before=fixed(2)(before) if before is not None else "")


def _data_cards(summary: dict[str, Any]) -> list[Card]:
    corrupt = summary["records_corrupt"]
    note = "read → kept" + (f"; {plural(corrupt, 'corrupt record')} skipped" if corrupt else "")
    documents = Card("Documents", whole(summary["documents_out"]), note, before=whole(summary["documents_in"]))
    if summary["documents_in"] is None:
        documents = Card("Documents", NOT_MEASURED)
    held_out = summary["tokens_validation"]
    note = "in the training split" + (f"; {counted(held_out)} held out" if held_out is not None else "")
    return [documents, Card("Tokens", counted(summary["tokens_train"]), note)]


def _training_cards(summary: dict[str, Any]) -> list[Card]:
    parameters = counted(summary["parameters"])
    processed = summary["tokens_processed"]
    note = f"trained on {counted(processed)} tokens" if processed else ""
    note += f" in {plural(int(summary['steps']), 'step')}" if processed and summary["steps"] else ""
    cards = [
        Card("Parameters", parameters, note),
        Card("Tokens per second", whole(summary["tokens_per_second"]), _layout_words(summary)),
    ]
    convention, peak = summary["flops_convention"], summary["peak_flops_per_second"]
    if summary["mfu"] is None:
        cards.append(Card("MFU", NOT_MEASURED, "no FLOPs convention or peak recorded"))
    else:
        source = CONVENTIONS[convention].source if convention in CONVENTIONS else "convention of the run"
        note = f"convention “{convention}” ({source}); peak {flops(peak)}: "
        note += summary["peak_source"] or "source not recorded"
        cards.append(Card("MFU", percent(summary["mfu"]), note))
    return cards


def _time_words(summary: dict[str, Any]) -> str:
    words = "wall time of this run"
    if summary["stage"] == "chain":
        reused = sum(stage["reused"] for stage in summary["stages"])
        words = "wall time of the chain" + (f", {plural(reused, 'stage')} reused" if reused else "")
    memory = summary.get("peak_memory_gib")
    return f"{words}; the largest training process used {gibibytes(memory)}" if memory is not None else words


def _layout_words(summary: dict[str, Any]) -> str:
    if not summary["steps_measured"]:
        return ""
    degrees = [f"{axis} parallel {summary[f'{axis}_parallel']}" for axis in ("tensor", "data", "pipeline")]
    split = " × ".join(words for words in degrees if not words.endswith((" 1", " None")))
    return f"median of {plural(summary['steps_measured'], 'steady step')}, {split or 'one process'}"


def _scaling_card(summary: dict[str, Any]) -> Card:
    compared = [p for p in summary["scaling"] if p["efficiency"] is not None and p["label"] != p["baseline"]]
    if not compared:
        return Card("Scaling efficiency", NOT_MEASURED)
    best = max(compared, key=lambda p: p["efficiency"])
    others = [f"{p['label']}: {percent(p['efficiency'])}" for p in compared if p is not best]
    note = "; ".join([f"{best['label']} against {best['baseline']}", *others])
    return Card("Scaling efficiency", percent(best["efficiency"]), f"{note}; all on one machine")
