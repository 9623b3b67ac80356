"""The look of every figure: one palette, one size, text kept as text, and the same bytes for the same numbers."""

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kit.units import format_count

# Okabe and Ito (2008), "Color universal design": eight colours told apart with any common colour vision.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE = "#56B4E9", "#CC79A7"
INK, SOFT, GREY, FAINT = "#1f2933", "#52606d", "#7b8794", "#e4e7eb"

WIDTH_INCHES, HEIGHT_INCHES = 5.4, 3.4
PIXELS_OF_A_POINT = 1.44  # on the page, so that 11 points print as body text

# svg.fonttype none keeps text selectable and small; the page replaces the family by its own.
RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a label of the crawl with two dollar signs is no formula
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": True,
    "legend.facecolor": "white",
    "legend.edgecolor": "white",
    "legend.framealpha": 0.85,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.8,
}


def draw(
    name: str,
    paint: Callable[[Axes], None],
    height: float = HEIGHT_INCHES,
    alt: str = "",
    width: float = WIDTH_INCHES,
    framed: bool = True,
) -> str:
    """Returns an inline SVG of one set of axes that `paint` fills; height and width are inches.

    Axes that aren't framed fill the figure and measure it in points from its upper left corner.

    The figure is made without pyplot, so nothing global is touched and no figure stays in memory. Identifiers are
    prefixed by `name`, because several figures share one HTML document.
    """
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained" if framed else None)
        FigureCanvasSVG(figure)
        paint(figure.add_subplot() if framed else _sheet(figure, width, height))
        stream = StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    # Where a figure has a width of its own, a page neither blows it up nor makes its text unreadable.
    widest = 72 * width * PIXELS_OF_A_POINT
    size = "" if framed else f' style="min-width:{0.7 * widest:.0f}px;max-width:{widest:.0f}px"'
    return _inline(stream.getvalue(), name, alt, size)


def _sheet(figure: Figure, width: float, height: float) -> Axes:
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 72 * width)
    axes.set_ylim(72 * height, 0)
    axes.axis("off")
    return axes


def _inline(svg: str, name: str, alt: str, style: str = "") -> str:
    """Cuts what an HTML document doesn't want (prolog, metadata with outside addresses) and prefixes identifiers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    # Size comes from the page: the view box alone keeps the proportions.
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"{style}', 1).strip()


def count_axis(axis: Any) -> None:
    """Writes an axis' ticks as 1.2k, 3.4M."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))


def bars(axes: Axes, labels: list[str], values: list[float], notes: list[str], colors: list[str]) -> None:
    """Horizontal bars, first on top, with a note at the end of each; no value axis, since the notes give the values."""
    positions = range(len(labels))
    axes.barh(positions, values, color=colors, height=0.68)
    largest = max([*values, 1e-12])
    for position, value, note in zip(positions, values, notes, strict=True):
        axes.text(value + largest * 0.015, position, note, va="center", ha="left", fontsize=10)
    axes.set_yticks(positions, labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, largest * 1.42)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    axes.spines[["bottom"]].set_visible(False)


def bar_height(rows: int) -> float:
    """Inches for a figure of that many bars."""
    return max(1.3, 0.36 * rows + 0.4)
