"""Where the boxes and wires of a left-to-right graph go: columns by depth, wires only in the gaps and under the boxes.

A box stands one column right of its last parent. A wire to the next column crosses the gap between them. A longer one
runs down the gap behind its source, along a lane under all boxes, and up the gap before its target, so no wire ever
passes behind a box. Wires of one source share its lane, as the nets of a circuit do. All lengths are points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]

LEAST_GAP, SLOT, LANE, ROW_GAP, MARGIN = 22.0, 6.0, 8.0, 16.0, 3.0


@dataclass(frozen=True)
class Node:
    """A box: its height, where its first port lies below its top, and its parents (name, key of the node)."""

    key: str
    height: float
    port_top: float
    port_step: float
    parents: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Wire:
    """A wire of one source to one port, as a line through these points, the arrow at the last."""

    source: str
    target: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Placed:
    """The whole layout; y grows downwards. `corner` is the upper left corner of a box; `ports` in printing order."""

    width: float
    height: float
    box_width: float
    nodes: Mapping[str, Node]
    corner: Mapping[str, Point]
    ports: Mapping[str, Sequence[tuple[str, str]]]
    wires: Sequence[Wire]


@dataclass
class _Gap:
    """The room right of a column: trunks leave its boxes, risers enter the boxes of the next."""

    left: float = 0.0
    trunks: list[str] = field(default_factory=list)
    risers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def width(self) -> float:
        return max(LEAST_GAP, 16.0 + SLOT * (len(self.trunks) + len(self.risers)))

    def trunk(self, source: str) -> float:
        return self.left + 6.0 + SLOT * self.trunks.index(source)

    def riser(self, source: str, target: str) -> float:
        place = len(self.trunks) + self.risers.index((source, target))
        return self.left + self.width - 10.0 - SLOT * (len(self.trunks) + len(self.risers) - 1 - place)


def place(nodes: Sequence[Node], box_width: float) -> Placed:
    """Lays out a graph without cycles. Parents that aren't among the nodes get a port and no wire."""
    known = {node.key: node for node in nodes}
    column = _columns(nodes, known)
    ports = {node.key: _sorted_ports(node, column) for node in nodes}
    lanes = _lanes(nodes, column)
    gaps = _gaps(nodes, column, lanes)
    left = MARGIN
    lefts: list[float] = []
    for gap in gaps:
        lefts.append(left)
        gap.left = left + box_width
        left = gap.left + gap.width
    width = gaps[-1].left + MARGIN if gaps else 2 * MARGIN
    corner, bottom = _corners(nodes, column, lefts)
    drawing = _Drawing(known, column, ports, lanes, gaps, corner, bottom, box_width)
    height = bottom + (LANE * (len(lanes) + 0.75) if lanes else 0.0) + MARGIN
    return Placed(width, height, box_width, known, corner, ports, drawing.wires())


def _columns(nodes: Sequence[Node], known: Mapping[str, Node]) -> dict[str, int]:
    depth: dict[str, int] = {}

    def look(node: Node) -> int:
        if node.key not in depth:
            depth[node.key] = 0  # a cycle can't be drawn, and doesn't hang either
            above = [look(known[parent]) for _, parent in node.parents if parent in known]
            depth[node.key] = 1 + max(above, default=-1)
        return depth[node.key]

    for node in nodes:
        look(node)
    return depth


def _sorted_ports(node: Node, column: Mapping[str, int]) -> list[tuple[str, str]]:
    """The nearest parents first: their wires then don't cross those of the others."""
    return sorted(node.parents, key=lambda port: -column.get(port[1], -1))


def _long_edges(nodes: Sequence[Node], column: Mapping[str, int]) -> list[tuple[str, str]]:
    edges = [(parent, node.key) for node in nodes for _, parent in node.parents if parent in column]
    return [(source, target) for source, target in edges if column[target] - column[source] > 1]


def _lanes(nodes: Sequence[Node], column: Mapping[str, int]) -> dict[str, int]:
    """The lane of every source of a long wire: the shorter the way, the nearer to the boxes."""
    sources = {source for source, _ in _long_edges(nodes, column)}
    order = {node.key: place for place, node in enumerate(nodes)}
    return {source: lane for lane, source in enumerate(sorted(sources, key=lambda s: (-column[s], order[s])))}


def _gaps(nodes: Sequence[Node], column: Mapping[str, int], lanes: Mapping[str, int]) -> list[_Gap]:
    gaps = [_Gap() for _ in range(max(column.values(), default=-1) + 1)]
    several = {c for c in column.values() if list(column.values()).count(c) > 1}
    for node in nodes:
        children = [other for other in nodes if any(parent == node.key for _, parent in other.parents)]
        here = column[node.key]
        bends = any(
            _sorted_ports(child, column)[0][1] != node.key or {here, here + 1} & several
            for child in children
            if column[child.key] == here + 1
        )
        if bends or node.key in lanes:
            gaps[here].trunks.append(node.key)
    for source, target in sorted(_long_edges(nodes, column), key=lambda edge: lanes[edge[0]]):
        gaps[column[target] - 1].risers.append((source, target))
    return gaps


def _corners(
    nodes: Sequence[Node], column: Mapping[str, int], lefts: Sequence[float]
) -> tuple[dict[str, Point], float]:
    """Boxes of one column stand under each other, in rows that go through all columns."""
    rows: dict[str, int] = {}
    for node in nodes:
        rows[node.key] = sum(column[key] == column[node.key] for key in rows)
    tops, top = [], MARGIN
    for row in range(max(rows.values(), default=-1) + 1):
        tops.append(top)
        top += max(node.height for node in nodes if rows[node.key] == row) + ROW_GAP
    corner = {node.key: (lefts[column[node.key]], tops[rows[node.key]]) for node in nodes}
    return corner, top - ROW_GAP if tops else MARGIN


@dataclass(frozen=True)
class _Drawing:
    known: Mapping[str, Node]
    column: Mapping[str, int]
    ports: Mapping[str, Sequence[tuple[str, str]]]
    lanes: Mapping[str, int]
    gaps: Sequence[_Gap]
    corner: Mapping[str, Point]
    bottom: float
    box_width: float

    def wires(self) -> list[Wire]:
        return [
            Wire(source, key, self._points(source, key, number))
            for key, ports in self.ports.items()
            for number, (_, source) in enumerate(ports)
            if source in self.known and self.column[source] < self.column[key]
        ]

    def _points(self, source: str, target: str, port: int) -> list[Point]:
        start_x = self.corner[source][0] + self.box_width
        start_y = self.corner[source][1] + self.known[source].port_top
        end = self.known[target]
        end_x, end_y = self.corner[target][0], self.corner[target][1] + end.port_top + port * end.port_step
        gap = self.gaps[self.column[source]]
        if self.column[target] == self.column[source] + 1:
            if start_y == end_y or source not in gap.trunks:
                return [(start_x, start_y), (end_x, end_y)]
            trunk = gap.trunk(source)
            return [(start_x, start_y), (trunk, start_y), (trunk, end_y), (end_x, end_y)]
        trunk, riser = gap.trunk(source), self.gaps[self.column[target] - 1].riser(source, target)
        lane = self.bottom + LANE * (self.lanes[source] + 1)
        return [
            (start_x, start_y), (trunk, start_y), (trunk, lane), (riser, lane), (riser, end_y), (end_x, end_y),
        ]  # fmt: skip
