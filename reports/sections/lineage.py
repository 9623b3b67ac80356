"""What ran: the lineage from the crawl on as a graph, and the stages with their run ids, states and digests."""

from typing import Any

from reports.document import Block, Column, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, number, rows_of
from reports.figures.lineage import Box, lineage
from reports.formats import counted, duration, fixed, gibibytes, percent, plural, short_digest, whole
from reports.story import StageEntry, Story

CRAWL = "crawl"
DIGITS_OF_A_DIGEST = 8
STAGE_COLUMNS = (
    Column("id", "stage"),
    Column("run_id", "run", code=True),
    Column("state", "state"),
    Column("seconds", "time", duration, numeric=True),
    Column("peak_memory_gib", "peak memory", gibibytes, numeric=True),
    Column("config_digest", "configuration", short_digest, code=True),
    Column("key", "reuse key", short_digest, code=True),
)


def lineage_section(story: Story, summary: dict[str, Any]) -> Section:
    """Returns the section on which runs made this result."""
    blocks: list[Block] = []
    if len(story.lineage) > 1:
        boxes = lineage_boxes(story)
        title = _title(boxes)
        caption = (
            "Every box is a run; the lines under its figure name its parents, each with the first digits of the digest "
            "that the run recorded of it. Lines lead from a parent to the runs that read it."
        )
        blocks.append(Figure("lineage", title, lineage(boxes, alt=title), caption, wide=True))
    rows = [_row(entry) for entry in story.entries]
    note = "Digests are SHA-256, shortened here; the CSV has them in full."
    collapsed = len(story.lineage) > 1 or bool(story.study)
    blocks.append(Table("stages", "Stages", STAGE_COLUMNS, rows, note=note, collapsed=collapsed))
    title = "Lineage" if len(story.lineage) > 1 else "What ran"
    return Section("lineage", title, _lead(story.subject), blocks)


def lineage_boxes(story: Story) -> list[Box]:
    """The runs of a lineage as boxes, parents first, with the crawl that the data came from in front."""
    boxes: list[Box] = []
    for entry in story.lineage:
        value, words = key_figure(entry, story)
        parents = [(CRAWL, f"{CRAWL} {entry.run_id}", _crawl_digest(entry.facts))] if _crawled(entry.facts) else []
        if parents:
            boxes.append(_crawl_box(parents[0][1], entry.facts))
        if entry.facts:
            parents += [
                (name, parent.run_id, short_digest(parent.digest)[:DIGITS_OF_A_DIGEST])
                for name, parent in entry.facts.manifest.parents.items()
            ]
        tag = "reused" if entry.reused else ""
        boxes.append(Box(entry.run_id, entry.stage, entry.id, _lines(entry), value, words, parents, tag))
    return boxes


def key_figure(entry: StageEntry, story: Story) -> tuple[str, tuple[str, ...]]:
    """The one figure of a run that its box shows, and what it is, in at most two short lines."""
    facts = entry.facts
    if facts is None:
        return "?", ("no run directory",)
    if facts.state != "finished":
        return "–", (str(facts.state),)
    card, sft, reward, rlhf = facts.card, facts.sft, facts.reward, facts.rlhf
    if card:
        train = card.splits.get("train")
        return counted(train.tokens if train else None), ("tokens of", plural(card.documents_out, "document"))
    if (share := number(sft.get("reference_contained_after"))) is not None:
        return _moved(sft, "reference_contained", percent), ("right answers,", _method(facts))
    if sft:
        return fixed(2)(number(sft.get("loss_after"))), ("loss on answers", _method(facts))
    if (share := number(reward.get("accuracy"))) is not None:
        return percent(share), ("of held-out pairs", "ranked right")
    if rlhf:
        return _moved(rlhf, "rule_reward", fixed(2)), ("rule reward,", str(rlhf.get("algorithm", "")).upper())
    if facts.evaluation:
        models = len(rows_of(facts.evaluation.get("models"))) or 1
        return str(models), ("model" if models == 1 else "models", "evaluated")
    return _base_figure(facts, story)


def _base_figure(facts: RunFacts, story: Story) -> tuple[str, tuple[str, ...]]:
    parameters = f"{counted(number(facts.training.get('parameters')))} parameters"
    for other in [entry.facts for entry in story.lineage if entry.facts]:
        model = other.manifest.parents.get("model")
        bits = number(other.evaluation.get("bits_per_byte"))
        if bits is not None and model and model.run_id == facts.id:
            return fixed(2)(bits), ("bits per byte,", parameters)
    loss = number(facts.training.get("validation_loss_after"))
    return (fixed(2)(loss), ("held-out loss,", parameters)) if loss is not None else ("–", (parameters,))


def _moved(found: dict[str, Any], key: str, show: Any) -> str:
    before, after = number(found.get(f"{key}_before")), number(found.get(f"{key}_after"))
    return f"{show(before)} → {show(after)}" if before is not None else show(after)


def _method(facts: RunFacts) -> str:
    method = facts.sft.get("method")
    return "LoRA" if method == "lora" else f"{method} tuning" if method else ""


def _title(boxes: list[Box]) -> str:
    runs = plural(sum(box.stage != CRAWL for box in boxes), "run")
    stages = {box.stage for box in boxes}
    goals = {"rlhf": "the aligned model", "reward": "a reward model", "sft": "a tuned model"}
    goal = next((goals[stage] for stage in goals if stage in stages), "a base model")
    return f"From {'the crawl' if CRAWL in stages else boxes[0].title} to {goal} in {runs}"


def _lines(entry: StageEntry) -> tuple[str, ...]:
    """A run id in two lines: when, and what."""
    words = entry.run_id.split("-", 2)
    return ("-".join(words[:2]), words[2]) if len(words) == 3 else (entry.run_id, "")


def _crawled(facts: RunFacts | None) -> bool:
    return bool(facts and facts.card and facts.card.inputs)


def _crawl_digest(facts: RunFacts | None) -> str:
    """The digest of the one input; several are counted, and their digests are in the data section."""
    inputs = facts.card.inputs if facts and facts.card else []
    return inputs[0].sha256[:DIGITS_OF_A_DIGEST] if len(inputs) == 1 else plural(len(inputs), "file")


def _crawl_box(key: str, facts: RunFacts | None) -> Box:
    assert facts is not None
    assert facts.card is not None
    files = plural(len(facts.card.inputs), "file")
    return Box(key, CRAWL, CRAWL, ("", ""), whole(facts.card.documents_in), ("documents", f"in {files}"))


def problem(facts: RunFacts) -> Paragraph | None:
    """Returns what a reader must know of a run that did not finish, or None."""
    if facts.state == "finished":
        return None
    failure = facts.failure
    if failure:
        parts = (("Found", "found"), ("Expected", "expected"), ("Do", "action"))
        told = "\n".join(f"{word}: {failure[key]}" for word, key in parts if failure.get(key))
        return Paragraph(f"The run {facts.id} failed.\n{told}".strip(), tone="notice")
    return Paragraph(
        f"The run {facts.id} is not finished: its state is “{facts.state}”. The numbers below are what it had recorded "
        "when this report was made.",
        tone="notice",
    )


def _lead(subject: RunFacts) -> str:
    manifest = subject.manifest
    commit = f"commit {manifest.git_commit[:12]}" if manifest.git_commit else "no commit recorded"
    if manifest.git_commit and manifest.git_diff_digest:
        commit += f" with uncommitted changes (diff {short_digest(manifest.git_diff_digest)})"
    return f"Made {manifest.created[:19].replace('T', ' ')} UTC from {commit}."


def _row(entry: StageEntry) -> list[str | float | None]:
    facts = entry.facts
    if facts is None:
        return [entry.id, entry.run_id or None, "no run directory", None, None, None, None]
    state = f"{facts.state}, reused" if entry.reused else facts.state
    manifest = facts.manifest
    return [entry.id, facts.id, state, facts.seconds, facts.peak_memory_gib, manifest.config_digest, manifest.key]
