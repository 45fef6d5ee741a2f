"""Taking in a tree: a manifest, then exactly the objects this host lacks."""

from __future__ import annotations

from typing import Any, Dict

from remote import datasets, files, store, wire
from remote.channel import Channel
from remote.errors import HEADROOM, Damaged, Refused
from remote.layout import Layout

Body = Dict[str, Any]


def sync(layout: Layout, channel: Channel, request: Body) -> Body:
    """The tree is committed after its last object, and is a dataset's folder if so asked."""
    payloads = channel.payloads()
    data = store.ByteStream(payloads)
    manifest = data.take(int(request["size"]))
    tree = str(request["tree"])
    if wire.tree_hash(manifest) != tree:
        raise wire.WireError("the manifest does not match its hash")
    entries = wire.parse_manifest(manifest)
    wanted = store.missing(layout, entries)
    needed = sum(entries[index].size - have for index, have in wanted)
    placing = datasets.copied_bytes(entries) if request.get("dataset") else 0
    if files.free_bytes(layout.root) < needed + placing + HEADROOM:
        free, kept = files.size(files.free_bytes(layout.root)), files.size(HEADROOM)
        text = "%s are free under %s on the host; %s are needed, and %s must stay free for logs"
        raise Refused(
            "HostDiskFull", text % (free, layout.root, files.size(needed + placing), kept)
        )
    # What is here is hashed before anything is asked for: whoever sends is then read from at once.
    wanted, begun = store.take_up(layout, entries, wanted, channel.beat)
    channel.item({"wanted": wanted})
    store.receive(layout, entries, wanted, data, begun)
    store.commit_tree(layout, manifest, tree)
    reply: Body = {"objects": len(wanted), "bytes": needed}
    if request.get("dataset"):
        try:
            reply["replaced"] = datasets.place(layout, manifest, tree, channel.beat)
        except Damaged as exc:  # the start finds the data lacking, and it is sent anew
            reply["damaged"] = str(exc)
    return reply
