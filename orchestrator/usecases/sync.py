"""Content to a host: the tree's manifest, then exactly the objects the host lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.manifest import Scan, read_object
from orchestrator.transport.base import Agent, End
from orchestrator.transport.replies import unlawful
from remote import wire

SYNC_DEADLINE = 300.0  # the host may have to hash and place a large dataset
INLINE_MAX = 512 * 1024  # a change up to this many bytes rides along with the start


def push(
    agent: Agent, scan: Scan, *, dataset: bool, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """The host holds the tree, complete and checked. `progress(sent, total)` counts bytes.

    Repeating it is harmless: what arrived before is not sent again.
    """
    body = {"tree": scan.tree, "size": len(scan.manifest), "dataset": dataset}
    for frame in agent.exchange("sync", body, [scan.manifest], deadline=SYNC_DEADLINE):
        if isinstance(frame, End):
            return frame.body
        if frame.kind == wire.ITEM and frame.json() != {}:
            _send(agent, scan, _wanted(frame.json(), scan), progress)
    raise AssertionError("exchange ends with End or raises")


def _send(
    agent: Agent,
    scan: Scan,
    wanted: list[tuple[wire.Entry, int]],
    progress: Callable[[int, int], None],
) -> None:
    total = sum(entry.size - have for entry, have in wanted)
    sent = 0
    for chunk in _batched(scan, wanted):
        if not agent.send_data(chunk):
            return  # its answer tells why
        sent += len(chunk)
        progress(sent, total)


def _wanted(item: Any, scan: Scan) -> list[tuple[wire.Entry, int]]:
    entries = wire.parse_manifest(scan.manifest)
    try:
        indexes = [(int(index), int(have)) for index, have in item["wanted"]]
        chosen = [(entries[index], have) for index, have in indexes if index >= 0]
    except (KeyError, IndexError, TypeError, ValueError):
        raise unlawful("a wish for content that is not in the manifest") from None
    if len(chosen) < len(indexes) or any(not 0 <= have <= entry.size for entry, have in chosen):
        raise unlawful("a wish for content that is not in the manifest")
    return chosen


def _batched(scan: Scan, wanted: list[tuple[wire.Entry, int]]) -> Iterator[bytes]:
    """The objects' bytes in pieces of about one frame: 5 000 small files are not 5 000 packets."""
    batch: list[bytes] = []
    size = 0
    for entry, have in wanted:
        for chunk in read_object(scan, entry, have):
            batch.append(chunk)
            size += len(chunk)
            if size >= wire.DATA_MAX // 2:
                yield b"".join(batch)
                batch, size = [], 0
    if batch:
        yield b"".join(batch)


def inline_change(scan: Scan, old: bytes) -> tuple[bytes, list[bytes]] | None:
    """(delta, new objects) from the tree last sent to this one; None when that is too much."""
    try:
        delta, added = wire.make_delta(old, scan.manifest)
    except wire.WireError:
        return None
    unique = {entry.sha256: entry for entry in reversed(added)}
    size = len(delta) + sum(entry.size for entry in unique.values())
    if size > INLINE_MAX:
        return None
    ordered = [entry for entry in added if unique.pop(entry.sha256, None)]
    return delta, [b"".join(read_object(scan, entry)) for entry in ordered]
