"""The headline cards: what each stage brought, from the crawl to the aligned model, and what it cost."""

from typing import Any

from kit.flops import CONVENTIONS
from reports.document import NOT_MEASURED, Card, CardGroup
from reports.formats import NO_BREAK_SPACE, chance, counted, duration, fixed, flops, gibibytes, percent, plural, whole

STAGES_OF_ALIGNMENT = ("sft", "reward", "rlhf")


def headline_cards(summary: dict[str, Any]) -> list[CardGroup]:
    """Returns the cards on top; only what belongs to the report's stages, absent numbers said to be so."""
    ran = summary["stages"]
    own = summary["stage"] in STAGES_OF_ALIGNMENT  # a run alone: the lineage tells of its base model
    aligned = [*_sft_cards(summary, ran), *_reward_cards(summary, ran), *_rlhf_cards(summary, ran)]
    groups = [
        CardGroup("From the crawl to a base model", [] if own else _base_cards(summary)),
        CardGroup("From the base model to an aligned one" if len(aligned) > 1 else "What it brought", aligned),
        CardGroup("Speed and time", _cost_cards(summary)),
    ]
    return [group for group in groups if group.cards]


def _base_cards(summary: dict[str, Any]) -> list[Card]:
    cards = _data_cards(summary) if "documents_in" in summary else []
    if "parameters" in summary:
        processed = summary["tokens_processed"]
        note = f"trained on {counted(processed)} tokens" if processed else ""
        note += f" in {plural(int(summary['steps']), 'step')}" if processed and summary["steps"] else ""
        cards.append(Card("Parameters", counted(summary["parameters"]), note, stage=_training_stage(summary)))
    return [*cards, _quality_card(summary)] if "bits_per_byte" in summary else cards


def _training_stage(summary: dict[str, Any]) -> str:
    """The stage whose numbers stand under the flat keys of training."""
    made = [stage for stage in ("pretrain", "zero") if stage in summary["stages"]]
    return summary["stage"] if summary["stage"] in ("pretrain", "zero", *STAGES_OF_ALIGNMENT) else "".join(made[-1:])


def _quality_card(summary: dict[str, Any]) -> Card:
    before, after, unigram = (summary[f"bits_per_byte{suffix}"] for suffix in ("_untrained", "", "_unigram"))
    note = "on held-out text"
    if summary["bits_per_byte_ratio"]:
        note += f"; {percent(summary['bits_per_byte_ratio'])} of the untrained model"
    note += f"; a unigram model needs {unigram:.2f}" if unigram is not None else ""
    first = fixed(2)(before) if before is not None else ""
    return Card("Bits per byte", fixed(2)(after), note, before=first, stage="pretrain")


def _data_cards(summary: dict[str, Any]) -> list[Card]:
    corrupt = summary["records_corrupt"]
    note = "read → kept" + (f"; {plural(corrupt, 'corrupt record')} skipped" if corrupt else "")
    before = whole(summary["documents_in"])
    documents = Card("Documents", whole(summary["documents_out"]), note, before=before, stage="data")
    if summary["documents_in"] is None:
        documents = Card("Documents", NOT_MEASURED, stage="data")
    held_out = summary["tokens_validation"]
    note = "in the training split" + (f"; {counted(held_out)} held out" if held_out is not None else "")
    cards = [documents, Card("Tokens", counted(summary["tokens_train"]), note, stage="data")]
    return [*cards, *_own_data_cards(summary)] if summary["stage"] == "data_prep" else cards


def _own_data_cards(summary: dict[str, Any]) -> list[Card]:
    """What the report of a data run alone shows besides."""
    duplicates, came = summary["duplicates"], summary["documents_in"]
    cards = []
    if duplicates is not None and came:
        cards.append(
            Card("Duplicates", whole(duplicates), f"{percent(duplicates / came)} of what was read", stage="data")
        )
    if rate := summary["pages_per_second_core"]:
        note = f"{fixed(1)(1000 / rate)} ms a page for everything, of one core"
        cards.append(Card("Pages per second", fixed(0 if rate >= 100 else 1)(rate), note, stage="data"))
    return cards


def _sft_cards(summary: dict[str, Any], ran: dict[str, Any]) -> list[Card]:
    if "sft" not in ran:
        return []
    before, after = (summary[f"sft_reference_contained_{when}"] for when in ("before", "after"))
    note = "share of held-out questions answered with the fact in question"
    pairs = summary["sft_pairs"]
    note += f"; tuned on {plural(int(pairs), 'pair')}" if pairs else ""
    first = percent(before) if before is not None else ""
    cards = [Card("Right answers", percent(after), note, before=first, stage="sft")]
    if summary["stage"] != "sft":
        return cards
    before, after = (summary[f"sft_loss_{when}"] for when in ("before", "after"))
    first = fixed(2)(before) if before is not None else ""
    return [*cards, Card("Loss", fixed(2)(after), "on held-out answers, nats per counted token", first, stage="sft")]


def _reward_cards(summary: dict[str, Any], ran: dict[str, Any]) -> list[Card]:
    if "reward" not in ran:
        return []
    before, after = summary["reward_accuracy_before"], summary["reward_accuracy"]
    held_out = summary["reward_held_out_pairs"]
    pairs = f"of {plural(int(held_out), 'held-out pair')}" if held_out else "of held-out pairs"
    first = percent(before) if before is not None else ""
    note = f"{pairs} ranked as the rule ranks them; chance is 50{NO_BREAK_SPACE}%"
    return [Card("Reward model", percent(after), note, before=first, stage="reward")]


def _rlhf_cards(summary: dict[str, Any], ran: dict[str, Any]) -> list[Card]:
    if "rlhf" not in ran:
        return []
    before, after = summary["rule_reward_before"], summary["rule_reward_after"]
    share, top, kl = (
        summary[k] for k in ("rule_reward_share_of_attainable", "rule_reward_attainable", "kl_nats_per_answer")
    )
    words = [str(summary["rlhf_algorithm"] or "").upper()]
    words += [f"{percent(share)} of the way to {top:.2f}"] if share is not None and top is not None else []
    words += [f"KL {kl:.2f} nats an answer"] if kl is not None else []
    first = fixed(2)(before) if before is not None else ""
    note = "; ".join(word for word in words if word)
    cards = [Card("Rule reward", fixed(2)(after), note, before=first, stage="rlhf")]
    if summary["win_rate"] is None and summary["win_p_value"] is None:
        return cards
    note = "over its parent on held-out prompts, ties half"
    note += f"; by chance {chance(summary['win_p_value'])}" if summary["win_p_value"] is not None else ""
    return [*cards, Card("Win rate", percent(summary["win_rate"]), note, stage="rlhf")]


def _cost_cards(summary: dict[str, Any]) -> list[Card]:
    cards = _speed_cards(summary) if "tokens_per_second" in summary else []
    if summary.get("scaling"):
        cards += _scaling_cards(summary)
    if summary["seconds"] is not None:
        cards.append(Card("Time", duration(summary["seconds"]), _time_words(summary)))
    return cards


def _speed_cards(summary: dict[str, Any]) -> list[Card]:
    stage = _training_stage(summary)
    cards = [Card("Tokens per second", whole(summary["tokens_per_second"]), _layout_words(summary), stage=stage)]
    convention, peak = summary["flops_convention"], summary["peak_flops_per_second"]
    if summary["mfu"] is None:
        return [*cards, Card("MFU", NOT_MEASURED, "no FLOPs convention or peak recorded", stage=stage)]
    source = CONVENTIONS[convention].source if convention in CONVENTIONS else "convention of the run"
    note = f"convention “{convention}” ({source}); peak {flops(peak)}: "
    note += summary["peak_source"] or "source not recorded"
    return [*cards, Card("MFU", percent(summary["mfu"]), note, stage=stage)]


def _time_words(summary: dict[str, Any]) -> str:
    words, memories = "wall time of this run", [summary["stages"].get(summary["stage"], {}).get("peak_memory_gib")]
    if summary["stage"] == "chain":
        reused = sum(run["reused"] for run in summary["runs"])
        words = "wall time of the chain" + (f", {plural(reused, 'stage')} reused" if reused else "")
        memories = [*summary["peak_memory_gib_by_stage"].values()]
    largest = max((memory for memory in memories if memory is not None), default=None)
    return f"{words}; the largest process used {gibibytes(largest)}" if largest is not None else words


def _layout_words(summary: dict[str, Any]) -> str:
    if not summary["steps_measured"]:
        return ""
    degrees = [f"{axis} parallel {summary[f'{axis}_parallel']}" for axis in ("tensor", "data", "pipeline")]
    split = " × ".join(words for words in degrees if not words.endswith((" 1", " None")))
    return f"median of {plural(summary['steps_measured'], 'steady step')}, {split or 'one process'}"


def _scaling_cards(summary: dict[str, Any]) -> list[Card]:
    modes = [mode for mode in ("strong", "weak") if any(p["mode"] == mode for p in summary["scaling"])]
    if not modes:
        return [Card("Scaling efficiency", NOT_MEASURED)]
    return [_scaling_card(summary, mode, len(modes) > 1) for mode in modes]


def _scaling_card(summary: dict[str, Any], mode: str, several: bool) -> Card:
    """The best point on the most ranks, and the others there."""
    found = [p for p in summary["scaling"] if p["mode"] == mode]
    compared = [p for p in found if p["processes"] == max(p["processes"] for p in found)]
    best = max(compared, key=lambda p: p["efficiency"])
    others = sorted((p for p in compared if p is not best), key=lambda p: p["efficiency"])
    told = [f"{_point_words(p)}: {percent(p['efficiency'])}" for p in (others[:1] if len(others) > 2 else others)]
    note = "; ".join([f"{_point_words(best)} against {best['baseline']}", *told])
    place = f"on up to {summary['scaling_hosts']} hosts" if summary["scaling_hosts"] > 1 else "all on one machine"
    title = f"{mode.capitalize()} scaling" if several else "Scaling efficiency"
    return Card(title, percent(best["efficiency"]), f"{note}; {place}")


def _point_words(point: dict[str, Any]) -> str:
    emulated = ", emulated" if point["link_emulated"] else ""
    return f"{point['label']} ({point['link']}{emulated})" if point["link"] else str(point["label"])
