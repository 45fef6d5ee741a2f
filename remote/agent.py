"""The agent: requests on stdin, replies on stdout, until the controller hangs up. Not a daemon."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Dict, Optional

MINIMUM = (3, 8)


def main() -> int:
    if sys.version_info < MINIMUM:
        sys.stderr.write("orch: python %d.%d is too old\n" % sys.version_info[:2])
        return 3
    os.umask(0o077)
    root = sys.argv[1] if len(sys.argv) > 1 else "~/.orch"
    return serve(os.path.abspath(os.path.expanduser(root)))


def serve(root: str) -> int:
    from remote import wire
    from remote.channel import Channel
    from remote.layout import Layout

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a controller that is gone ends the agent
    channel = Channel(0, 1)
    layout = Layout(root)
    greeted = False
    while True:
        try:
            request = channel.request()
        except wire.LinkClosed:
            return 0
        except wire.WireError as exc:
            channel.end({"ok": False, "error": {"kind": "FrameGarbled", "message": str(exc)}})
            return 1
        if request is None:
            return 0
        if not greeted:  # the controller learns that there is an agent, however long the work takes
            channel.item({})
            greeted = True
        answer = _answer_apart if request.get("verb") == "sync" else _answer
        if not answer(layout, channel, request):
            return 1


def _answer_apart(layout: "object", channel: "object", request: Dict[str, object]) -> bool:
    """Answer in a fork: a sync may need much memory, of which a supervisor forked from this process
    later would keep a copy for as long as its run lasts."""
    from remote.channel import Channel

    assert isinstance(channel, Channel)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if _answer(layout, channel, request) else 1
        finally:
            os._exit(code)
    channel.forget()
    return os.waitpid(pid, 0)[1] == 0


def _answer(layout: "object", channel: "object", request: Dict[str, object]) -> bool:
    """Answer one request; False when the stream cannot go on."""
    from remote import files, verbs, wire
    from remote.channel import Channel
    from remote.errors import Refused, before_any_change
    from remote.layout import BadName, Layout

    assert isinstance(layout, Layout) and isinstance(channel, Channel)
    verb = verbs.find(str(request.get("verb")))
    problem: Optional[Dict[str, str]] = None
    fatal = False
    try:
        if request.get("protocol") != wire.PROTOCOL or verb is None:
            raise Refused("AgentMismatch", "this agent does not know %r" % request.get("verb"))
        with before_any_change():
            layout.ensure()
        channel.end({"ok": True, **verb(layout, channel, request)})
        return True
    except Refused as exc:
        problem, fatal = {"kind": exc.kind, "message": str(exc)}, exc.kind == "HostDiskFull"
    except BadName as exc:
        problem = {"kind": "UsageError", "message": str(exc)}
    except wire.WireError as exc:
        problem, fatal = {"kind": "FrameGarbled", "message": str(exc)}, True
    except BrokenPipeError:
        return False
    except OSError as exc:
        problem, fatal = {"kind": "HostError", "message": files.words(exc)}, True
        if files.is_full(exc):
            kind = "HostReadOnly" if exc.errno == errno.EROFS else "HostDiskFull"
            problem = {"kind": kind, "message": files.full_words(exc, layout.root)}
    except Exception as exc:  # the last net: the controller must learn of it in words
        text = "%s: %s" % (type(exc).__name__, exc)
        problem, fatal = {"kind": "HostError", "message": text}, True
    channel.end({"ok": False, "error": problem})
    return not fatal
