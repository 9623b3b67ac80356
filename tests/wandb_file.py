"""Reads a .wandb file back: a 7-byte header, LevelDB's record framing, one protobuf Record each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK_BYTES, HEADER_BYTES, FRAME_BYTES = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for payload in _payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        yield record


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B", "not a .wandb file"
    place, parts = HEADER_BYTES, b""
    while place + FRAME_BYTES <= len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < FRAME_BYTES:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if kind == 0:
            return
        parts += data[place + FRAME_BYTES : place + FRAME_BYTES + length]
        place += FRAME_BYTES + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, one mapping a call of `log`."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]
