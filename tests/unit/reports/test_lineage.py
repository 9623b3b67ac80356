"""The graph of a lineage: boxes and wires have room, whatever the family looks like."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from reports.figures.graph import Node, Placed, place
from reports.figures.lineage import BOX_WIDTH, LEAST_SHARE, Box, fitted, layout, lineage

FAMILY = {
    "data": [], "pretrain": ["data"], "sft": ["pretrain"], "reward": ["sft"], "rlhf": ["sft", "reward"],
    "evaluate": ["pretrain", "data", "sft", "rlhf"],
}  # fmt: skip


def nodes_of(family: dict[str, list[str]]) -> list[Node]:
    return [
        Node(key, 80.0 + 11.0 * len(parents), 70.0, 11.0, [(f"as-{p}", p) for p in parents])
        for key, parents in family.items()
    ]


def check(placed: Placed) -> None:
    """No two boxes overlap, no wire passes through a box, no wire lies on another source's, all is on the sheet."""
    boxes = {key: (x, y, x + placed.box_width, y + placed.nodes[key].height) for key, (x, y) in placed.corner.items()}
    for (left, top, right, bottom), (l2, t2, r2, b2) in itertools.combinations(boxes.values(), 2):
        assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top
    for box in boxes.values():
        assert 0 <= box[0] < box[2] <= placed.width
        assert 0 <= box[1] < box[3] <= placed.height
    lines = [(w.source, *pair) for w in placed.wires for pair in itertools.pairwise(w.points)]
    for _, (x1, y1), (x2, y2) in lines:
        assert 0 <= min(x1, x2) <= max(x1, x2) <= placed.width
        assert 0 <= min(y1, y2) <= max(y1, y2) <= placed.height
        for left, top, right, bottom in boxes.values():
            clear = max(x1, x2) <= left or min(x1, x2) >= right or max(y1, y2) <= top or min(y1, y2) >= bottom
            assert clear, "a wire passes through a box"
    uprights = [(s, a[0], *sorted((a[1], b[1]))) for s, a, b in lines if a[0] == b[0] and a[1] != b[1]]
    for (s1, x1, low1, high1), (s2, x2, low2, high2) in itertools.combinations(uprights, 2):
        assert s1 == s2 or x1 != x2 or high1 <= low2 or high2 <= low1, "two wires lie on each other"


def test_the_family_of_the_demo_has_one_straight_line() -> None:
    placed = place(nodes_of(FAMILY), BOX_WIDTH)
    check(placed)
    straight = {(w.source, w.target) for w in placed.wires if len(w.points) == 2}
    assert straight == set(itertools.pairwise(FAMILY))
    assert len(placed.wires) == sum(map(len, FAMILY.values()))
    assert [name for name, _ in placed.ports["evaluate"]] == ["as-rlhf", "as-sft", "as-pretrain", "as-data"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=10))
def test_any_family_of_ten_has_room(parents: list[set[int]]) -> None:
    family = {f"n{i}": [f"n{p}" for p in sorted(chosen) if p < i] for i, chosen in enumerate(parents)}
    placed = place(nodes_of(family), BOX_WIDTH)
    check(placed)
    assert len(placed.wires) == sum(map(len, family.values()))
    for wire in placed.wires:
        port = [key for _, key in placed.ports[wire.target]].index(wire.source)
        left, top = placed.corner[wire.target]
        assert wire.points[-1] == (left, top + 70.0 + 11.0 * port)


def test_a_parent_outside_the_graph_has_a_port_and_no_wire() -> None:
    placed = place(nodes_of({"a": ["gone"], "b": ["a"]}), BOX_WIDTH)
    assert placed.ports["a"] == [("as-gone", "gone")]
    assert [(w.source, w.target) for w in placed.wires] == [("a", "b")]


def test_texts_fit_their_boxes() -> None:
    assert fitted("short", 80, 10) == ("short", 10)
    told, size = fitted("a little too wide for it", 100, 10)
    assert (told, 7.5 <= size < 10) == ("a little too wide for it", True)
    told, size = fitted("w" * 60, 80, 10)
    assert (told.endswith("…"), size) == (True, 10 * LEAST_SHARE)
    assert fitted("", 80, 10) == ("", 10)


@pytest.mark.parametrize("text", ["$x$ & <b>", "a" * 200, "界" * 40])
def test_the_figure_takes_any_text(text: str) -> None:
    boxes = [
        Box("a", "sft", text, (text, ""), text, (text,), [(text, "gone", "0123abcd")], tag="reused"),
        Box("b", "unheard of", text, (text, ""), text, (text,), [(text, "a", "0123abcd")]),
    ]
    check(layout(boxes))
    root = etree.fromstring(lineage(boxes, alt=text).encode())
    assert root.get("aria-label") == text
    if len(text) < 20:
        assert text in "".join(root.itertext())
