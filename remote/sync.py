"""Taking in a tree: a manifest, then exactly the objects this host lacks."""

from __future__ import annotations

from typing import Any, Dict

from remote import files, store, trees, wire
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
    if files.free_bytes(layout.root) < needed + HEADROOM:
        free, kept = files.size(files.free_bytes(layout.root)), files.size(HEADROOM)
        text = "%s are free under %s on the host; %s are to be sent, and %s must stay free for logs"
        raise Refused("HostDiskFull", text % (free, layout.root, files.size(needed), kept))
    channel.item({"wanted": wanted})
    store.receive(layout, entries, wanted, data)
    store.commit_tree(layout, manifest, tree)
    if request.get("dataset"):
        try:
            trees.place_dataset(layout, manifest, tree)
        except Damaged as exc:  # the start finds the data lacking, and it is sent anew
            return {"objects": len(wanted), "bytes": needed, "damaged": str(exc)}
    return {"objects": len(wanted), "bytes": needed}
