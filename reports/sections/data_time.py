"""What a data run cost: processor time by block and by step."""

from kit.tokens.card import BlockCard, DatasetCard
from reports.document import Block, Cell, Column, Figure, Table
from reports.figures.corpus import in_order
from reports.figures.style import BLUE, GREY
from reports.formats import duration, percent


def time_figure(card: DatasetCard) -> list[Block]:
    """Returns the processor time of every block, and of all that is no block."""
    blocks = {block.name: block for block in card.blocks if block.cpu_seconds is not None}
    if not any(block.cpu_seconds for block in blocks.values()):
        return []
    rows = [
        (name, block.cpu_seconds or 0.0, f"{short_time(block.cpu_seconds)} · {_rate(block)}")
        for name, block in blocks.items()
    ]
    known = sum(row[1] for row in rows)
    total = sum(card.step_cpu_seconds.values())
    if total > known:
        rows.append(("all else", total - known, duration(total - known)))
    slowest = max(rows[: len(blocks)], key=lambda row: row[1])[0]
    title = f"“{slowest}” takes the most time of all blocks"
    if total and card.documents_in:
        title = f"{1000 * total / card.documents_in:.1f} ms of one core a page; the slowest block is “{slowest}”"
    caption = "CPU time by block, over all tasks, and documents a second of one core."
    if total > known:
        caption += " All else: reading and storing, processes of a block's own, finding duplicates, the tokenizer."
    colors = [BLUE] * len(blocks) + [GREY] * (len(rows) - len(blocks))
    return [Figure("cpu", title, in_order("cpu", rows, colors, alt=title), caption)]


def short_time(value: Cell) -> str:
    """Seconds as a duration; below a tenth of one, milliseconds."""
    if isinstance(value, int | float) and 0 < value < 0.1:
        return f"{1000 * value:.0f} ms" if value >= 0.0005 else "< 1 ms"
    return duration(value)


def _rate(block: BlockCard) -> str:
    seconds = block.cpu_seconds or 0.0
    return f"{block.documents_in / seconds:,.0f}/s" if seconds >= 0.001 else "at once"


STEP_COLUMNS = (
    Column("step", "step"),
    Column("cpu_seconds", "CPU time", short_time, numeric=True),
    Column("share", "share", percent, numeric=True),
)


def step_table(card: DatasetCard) -> list[Block]:
    """Returns the processor time of every step: a row of blocks between two places where text is stored."""
    total = sum(card.step_cpu_seconds.values())
    rows: list[list[Cell]] = [
        [name, seconds, seconds / total if total else None]
        for name, seconds in sorted(card.step_cpu_seconds.items(), key=lambda item: (-item[1], item[0]))
    ]
    note = f"All of them: {duration(total)} of one core."
    return [Table("steps", "Time by step", STEP_COLUMNS, rows, note, brief=False, collapsed=True)] if rows else []
