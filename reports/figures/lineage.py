"""The figure of a lineage: from the crawl to the aligned model, a box a run, a wire a parent."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from reports.figures.graph import Node, Placed, Point, Wire, place
from reports.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, SOFT, VERMILION, draw

COLOR_OF_STAGE = {
    "crawl": GREY, "data_prep": BLUE, "pretrain": GREEN, "zero": GREEN, "sft": ORANGE, "reward": PURPLE,
    "rlhf": VERMILION, "evaluate": SKY,
}  # fmt: skip
BOX_WIDTH, PAD, STRIP = 92.0, 7.0, 4.0
TITLE, RUN, VALUE, WORDS, PORT = 9.5, 7.0, 14.0, 7.5, 7.5  # sizes of text, points
ROUNDING = 5.0
LEAST_SHARE = 0.75  # of its size, before a text that is too wide for its box is cut


@dataclass(frozen=True)
class Box:
    """One run: `run` and `words` are lines of small print, `parents` (name, key of the parent's box, short digest)."""

    key: str
    stage: str
    title: str
    run: Sequence[str]
    value: str
    words: Sequence[str]
    parents: Sequence[tuple[str, str, str]] = ()
    tag: str = ""


def lineage(boxes: Sequence[Box], alt: str = "") -> str:
    """Returns the graph of the runs, left to right; as wide as it has generations."""
    placed = layout(boxes)

    def paint(axes: Axes) -> None:
        color_of = {box.key: COLOR_OF_STAGE.get(box.stage, SOFT) for box in boxes}
        for wire in placed.wires:
            _wire(axes, wire, color_of[wire.source])
        for box in boxes:
            _box(axes, box, placed)

    return draw("lineage", paint, placed.height / 72, alt, placed.width / 72, framed=False)


def layout(boxes: Sequence[Box]) -> Placed:
    """Places the boxes; every first port and every exit lies at one height, so that the main line is straight."""
    top = _port_top(boxes)
    step = PORT + 4
    nodes = [
        Node(
            key=box.key,
            height=top + max(len(box.parents) - 1, 0) * step + PORT + 3,
            port_top=top,
            port_step=step,
            parents=[(name, parent) for name, parent, _ in box.parents],
        )
        for box in boxes
    ]
    return place(nodes, BOX_WIDTH)


def fitted(text: str, width: float, size: float, bold: bool = False) -> tuple[str, float]:
    """The text and its size: smaller where it is wider than that many points, and cut where that isn't enough."""
    natural = _width(text, size, bold)
    if natural <= width:
        return text, size
    smaller = max(size * width / natural, LEAST_SHARE * size)
    if natural * LEAST_SHARE <= width:
        return text, smaller
    fits = bisect(range(1, len(text)), width, key=lambda count: _width(text[:count] + "…", smaller, bold))
    return text[:fits] + "…", smaller


def _width(text: str, size: float, bold: bool) -> float:
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def _port_top(boxes: Sequence[Box]) -> float:
    lines = max((len(box.run) for box in boxes), default=0)
    words = max((len(box.words) for box in boxes), default=0)
    return STRIP + 13 + lines * (RUN + 2.5) + VALUE + 6 + words * (WORDS + 2.5) + 14


def _box(axes: Axes, box: Box, placed: Placed) -> None:
    left, top = placed.corner[box.key]
    node = placed.nodes[box.key]
    color = COLOR_OF_STAGE.get(box.stage, SOFT)
    frame = FancyBboxPatch(
        (left, top), BOX_WIDTH, node.height, boxstyle=f"round,pad=0,rounding_size={ROUNDING}",
        facecolor="white", edgecolor="#cbd2d9", linewidth=0.9, zorder=3,
    )  # fmt: skip
    axes.add_patch(frame)
    strip = Rectangle((left, top), BOX_WIDTH, STRIP, facecolor=color, linewidth=0, zorder=4)
    axes.add_patch(strip)
    strip.set_clip_path(frame)
    _words(axes, box, left + PAD, top + STRIP + 13, BOX_WIDTH - 2 * PAD)
    digest_of = {(name, parent): digest for name, parent, digest in box.parents}
    for number, (name, parent) in enumerate(placed.ports[box.key]):
        y = top + node.port_top + number * node.port_step + PORT * 0.36
        digest = digest_of[name, parent]
        room = BOX_WIDTH - 2 * PAD - _width(digest, PORT, False) - 4
        _text(axes, left + PAD, y, name, PORT, room)
        axes.text(left + BOX_WIDTH - PAD, y, digest, fontsize=PORT, color=GREY, ha="right", zorder=5)


def _words(axes: Axes, box: Box, x: float, y: float, room: float) -> None:
    """Title, run, key figure and what it is, one under the other."""
    tag_room = _width(box.tag, RUN, False) + 4 if box.tag else 0.0
    _text(axes, x, y, box.title, TITLE, room - tag_room, weight="bold")
    if box.tag:
        axes.text(x + room, y, box.tag, fontsize=RUN, color=SOFT, ha="right", zorder=5)
    for words in box.run:
        y += RUN + 2.5
        _text(axes, x, y, words, RUN, room, GREY)
    y += VALUE + 6
    _text(axes, x, y, box.value, VALUE, room, weight="bold")
    for words in box.words:
        y += WORDS + 2.5
        _text(axes, x, y, words, WORDS, room, SOFT)


def _text(
    axes: Axes, x: float, y: float, words: str, size: float, room: float, color: str = INK, weight: str = "normal"
) -> None:
    told, size = fitted(words, room, size, bold=weight == "bold")
    axes.text(x, y, told, fontsize=size, fontweight=weight, color=color, zorder=5)


def _wire(axes: Axes, wire: Wire, color: str) -> None:
    path = _rounded(wire.points)
    halo = PathPatch(path, facecolor="none", edgecolor="white", linewidth=3.6, zorder=1)
    line = PathPatch(path, facecolor="none", edgecolor=color, linewidth=1.5, zorder=2, capstyle="round")
    axes.add_patch(halo)
    axes.add_patch(line)
    x, y = wire.points[-1]
    head = Path([(x - 5.0, y - 3.0), (x, y), (x - 5.0, y + 3.0), (x - 5.0, y - 3.0)])
    axes.add_patch(PathPatch(head, facecolor=color, edgecolor=color, linewidth=0.8, zorder=6))


def _rounded(points: Sequence[Point]) -> Path:
    """The line with its corners rounded by a quadratic curve."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        into, out = _towards(corner, before), _towards(corner, after)
        vertices += [into, corner, out]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _towards(corner: Point, other: Point) -> Point:
    """The point on the way from a corner to its neighbour where the curve begins: half-way at most."""
    across, down = other[0] - corner[0], other[1] - corner[1]
    length = (across**2 + down**2) ** 0.5
    share = min(ROUNDING, length / 2) / length if length else 0.0
    return corner[0] + across * share, corner[1] + down * share
