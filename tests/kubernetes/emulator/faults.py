"""What can be made to go wrong in the EMULATED cluster, as it goes wrong in real ones."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Faults:
    """Counts are used up; the rest holds until it is changed.

    Attributes:
        conflicts: so many updates are answered by 409, after another writer has changed the object.
        busy: so many requests are answered by 503.
        lost_answers: so many creations happen and their connection breaks before the answer.
        unauthorized: every request is answered by 401.
        forbidden: `verb resource` that these credentials may not do.
        refuse_pods: what a quota or an admission policy says to the Job's controller; None: nothing.
        refuse_objects: what an admission policy says to the creation of an object of a kind.
        images: that the nodes can pull; None: all.
        unschedulable: completion indices for which no node has room.
        slow_start_seconds: completion index -> how long its container takes to start.
        silent_nodes: nodes that have gone without a word.
    """

    conflicts: int = 0
    busy: int = 0
    lost_answers: int = 0
    unauthorized: bool = False
    forbidden: set[str] = field(default_factory=set)
    refuse_pods: str | None = None
    refuse_objects: dict[str, str] = field(default_factory=dict)
    images: set[str] | None = None
    unschedulable: set[int] = field(default_factory=set)
    slow_start_seconds: dict[int, float] = field(default_factory=dict)
    silent_nodes: set[str] = field(default_factory=set)
