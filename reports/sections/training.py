"""The training section: loss and throughput, model and layout, and what MFU means here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kit.flops import CONVENTIONS
from reports.document import Block, Cell, Column, Figure, Paragraph, Section, Table
from reports.facts import RunFacts, number
from reports.figures.training import Level, loss_curve, throughput
from reports.formats import counted, fixed, flops, gibibytes, percent, plural, whole
from reports.scaling import spread
from reports.sections.ownership import ownership_blocks
from reports.sections.steps import skipped_blocks, source_blocks, time_blocks
from reports.story import MAKES_A_BASE_MODEL, Story

Printer = Callable[[Cell], str]
MODEL_NUMBERS: tuple[tuple[str, str, Printer], ...] = (
    ("parameters", "parameters", whole),
    ("parameters_non_embedding", "of them outside the embeddings", whole),
    ("steps", "optimizer steps", whole),
    ("global_batch_tokens", "tokens per step", whole),
    ("tokens_processed", "tokens processed", whole),
    ("skipped_steps", "steps left out", whole),
    ("validation_loss_before", "validation loss before", fixed(4)),
    ("validation_loss_after", "validation loss after", fixed(4)),
    ("export_max_logit_difference", "largest logit difference after export", lambda value: f"{value:.3g}"),
)
SPEED_NUMBERS: tuple[tuple[str, str, Printer], ...] = (
    ("tokens_per_second", "tokens per second (median)", whole),
    ("flops_per_token", "model FLOPs per token", whole),
    ("flops_convention", "FLOPs convention", str),
    ("mfu", "MFU by that convention", percent),
    ("hfu", "HFU, with what is computed again", percent),
    ("peak_flops_per_second", "peak that the MFU is of, whole job", flops),
    ("peak_source", "where that peak is from", str),
    ("peak_memory_gib", "peak memory of the largest process", gibibytes),
)
PER_TOKEN = "nats per token"
LOSS_OF = {"sft": "nats per counted token", "reward": "nats per pair", "rlhf": ""}


def training_section(story: Story, summary: dict[str, Any]) -> Section | None:
    """Returns the section on the training run, or None where there is none."""
    facts = story.training
    if facts is None:
        return None
    blocks: list[Block] = []
    if not facts.metrics:
        blocks.append(Paragraph("The run recorded no step, so there are no curves.", tone="notice"))
    blocks += _diverged(facts)
    base = facts.stage in MAKES_A_BASE_MODEL
    levels = _levels(story) if base else []
    blocks += loss_figure(
        facts, "loss", LOSS_OF.get(facts.stage, PER_TOKEN), levels, _level_words(story) if base else ""
    )
    blocks += _reconfigured(facts)
    blocks += skipped_blocks(facts)
    blocks += source_blocks(facts) if base else []
    blocks += _throughput_figure(facts)
    blocks += _present(_numbers(summary, "training", "Model and loss", MODEL_NUMBERS), whole_table=base)
    blocks += _present(_numbers(summary, "speed", "Speed and memory", SPEED_NUMBERS), whole_table=base)
    blocks += ownership_blocks(facts)
    blocks += time_blocks(facts)
    blocks.append(Paragraph(utilisation_words(facts.training)))
    title = "Training" if not base or facts is story.subject else "Training of the base model"
    return Section("training", title, _lead(facts, summary), blocks)


def _reconfigured(facts: RunFacts) -> list[Block]:
    """A line for every resume that went on with other settings."""
    changes = [event.get("changes", {}) for event in facts.reconfigured]
    words = ["; ".join(f"{key} {old} → {new}" for key, (old, new) in changed.items()) for changed in changes]
    return [Paragraph(f"Resumed with other settings: {told}.", tone="notice") for told in words if told]


def _present(table: Table, whole_table: bool) -> list[Block]:
    """The table; for stages that measure only some of its rows, without the others."""
    rows = table.rows if whole_table else [row for row in table.rows if row[-1] is not None]
    return [replace(table, rows=rows)] if rows else []


def utilisation_words(training: dict[str, Any]) -> str:
    """Says by which convention FLOPs were counted and against which peak, in one paragraph."""
    convention, peak = convention_words(training), peak_words(training)
    if not (convention and peak):
        return "Model FLOPs utilisation (MFU): not measured, since the run recorded no FLOPs convention or peak."
    return " ".join(words for words in (convention, hardware_words(training), f"The peak is {peak}.") if words)


def convention_words(training: dict[str, Any]) -> str:
    """How FLOPs were counted; empty where not recorded."""
    name, per_token = training.get("flops_convention"), number(training.get("flops_per_token"))
    if not (name and per_token):
        return ""
    known = CONVENTIONS.get(name)
    words = f" ({known.words}; {known.source})" if known else ""
    return (
        f"Model FLOPs utilisation (MFU) counts FLOPs by the convention “{name}”{words}: "
        f"{per_token / 1e6:,.1f} MFLOP per token."
    )


def hardware_words(training: dict[str, Any]) -> str:
    """What HFU counts beside that; empty where nothing was computed again."""
    again, per_token = training.get("recompute"), number(training.get("hardware_flops_per_token"))
    if again in (None, "none") or not per_token:
        return ""
    return (
        f"Hardware FLOPs utilisation (HFU) also counts what {again} recomputation does again: "
        f"{per_token / 1e6:,.1f} MFLOP per token."
    )


def peak_words(training: dict[str, Any]) -> str:
    """The peak of the whole job and where it is from; empty where not recorded."""
    peak, source = number(training.get("peak_flops_per_second")), training.get("peak_source")
    return f"{flops(peak)} for the whole job ({source or 'source not recorded'})" if peak else ""


def _lead(facts: RunFacts, summary: dict[str, Any]) -> str:
    layout = " × ".join(f"{axis} {facts.degree(axis)}" for axis in ("tensor", "data", "pipeline") if facts.degree(axis))
    words = [f"{counted(summary['parameters'])} parameters" if summary["parameters"] else "", layout]
    if summary["world_size"]:
        threads = summary["threads_per_process"]
        each = f", {plural(int(threads), 'thread')} each" if threads else ""
        words.append(f"{plural(int(summary['world_size']), 'process')}{each}")
    words += [str(summary[key]) for key in ("engine", "device") if summary[key]]
    return " · ".join(word for word in words if word) + "." if any(words) else ""


def _diverged(facts: RunFacts) -> list[Block]:
    broken = [record["step"] for record in facts.metrics if "loss" in record and number(record["loss"]) is None]
    if not broken:
        return []
    return [
        Paragraph(
            f"The loss was not a finite number in {plural(len(broken), 'step')}, first in step {broken[0]}.", "notice"
        )
    ]


def validation_curve(facts: RunFacts) -> list[tuple[int, float]]:
    """The validation losses of the steps that measured one, and those recorded before the first and after the last."""
    curve = dict(facts.curve("validation_loss"))
    before, after = (_recorded_loss(facts, when) for when in ("before", "after"))
    last = facts.result.get("steps") or (facts.metrics[-1]["step"] if facts.metrics else None)
    if before is not None:
        curve.setdefault(0, before)
    if after is not None and last:
        curve.setdefault(int(last), after)
    return sorted(curve.items())


def _recorded_loss(facts: RunFacts, when: str) -> float | None:
    keys = (f"validation_loss_{when}", f"loss_{when}")
    return next((value for key in keys if (value := number(facts.result.get(key))) is not None), None)


def loss_figure(
    facts: RunFacts, name: str, measure: str = PER_TOKEN, levels: Sequence[Level] = (), caption: str = ""
) -> list[Block]:
    """The loss over the steps of a run, as a figure of that name; nothing where no step recorded one."""
    train, validation = facts.curve("loss"), validation_curve(facts)
    if not train:
        return []
    named, curve = ("Validation", validation) if len(validation) > 1 else ("Training", train)
    first, last = curve[0][1], curve[-1][1]
    moved = f"{'fell' if last < first else 'rose'} from {first:.2f} to {last:.2f}"
    title = f"{named} loss {moved} in {plural(curve[-1][0], 'step')}"
    axis = f"loss ({measure})" if measure else "loss"
    return [Figure(name, title, loss_curve(train, validation, levels, title, name, axis), caption)]


def _levels(story: Story) -> list[Level]:
    """Loss of guessing evenly, ln(vocabulary), and of a unigram model: what any training has to fall below."""
    levels = []
    card = story.data.card if story.data else None
    if card:
        levels.append(Level("even guess, ln(vocabulary)", math.log(card.tokenizer.vocab_size)))
    unigram = number(story.evaluate.evaluation.get("perplexity_unigram")) if story.evaluate else None
    if unigram:
        levels.append(Level("unigram model", math.log(unigram)))
    return levels


def _level_words(story: Story) -> str:
    card = story.data.card if story.data else None
    words = "Mean negative log likelihood per token."
    if card:
        words += f" An even guess over the {whole(card.tokenizer.vocab_size)} pieces costs ln(vocabulary)."
    if len(_levels(story)) > 1:
        words += " The unigram model knows only how often each piece occurs in the training split."
    return words


def _throughput_figure(facts: RunFacts) -> list[Block]:
    rates = facts.rates
    found = spread([rate for _, rate in rates])
    if found is None:
        return []
    title = f"{whole(found.median)} tokens per second in the median step"
    caption = (
        f"Whole job, all processes. Median and middle half of {plural(found.measured, 'steady step')}; "
        f"the first {plural(found.warm_up, 'step')} count as warm-up and are left out.{rate_words(facts)}"
    )
    return [Figure("throughput", title, throughput(rates, found, alt=title), caption)]


def rate_words(facts: RunFacts) -> str:
    """Says what the recorded rates leave out, where the records show it: checkpoints and evaluation."""
    record = facts.metrics[-1] if facts.metrics else {}
    rate, tokens, *parts = (
        number(record.get(key)) for key in ("tokens_per_second", "tokens", "data_seconds", "compute_seconds")
    )
    if rate is None or tokens is None or None in parts:
        return ""
    parts.append(number(record.get("communication_seconds")))
    working = math.fsum(part for part in parts if part is not None)
    bare = math.isclose(rate * working, tokens, rel_tol=1e-3)
    return " The time for checkpoints and evaluation is not in the rate." if bare else ""


def _numbers(summary: dict[str, Any], name: str, title: str, printed: Sequence[tuple[str, str, Printer]]) -> Table:
    columns = (Column("quantity", "quantity"), Column("value", "value", numeric=True))
    rows: list[list[Cell]] = []
    for key, label, show in printed:
        value = summary.get(key)
        rows.append([label, None if value is None else show(value)])
    return Table(name, title, columns, rows)
