"""A machine with a real systemd, logind and users' managers, as processes of this one.

Systemd is pid 1 of a pid namespace. Its disk is this machine's, read only; what it must write to is
in memory. It knows no units but ours: those of a whole boot would empty /tmp and set sysctls, here.
The network is shared, so its sshd is reached as any other.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from tests.helpers import processes
from tests.helpers.sshd import PrivateSshd

UNITS = Path("/usr/lib/systemd/system")
STOCK = (
    "dbus.service",
    "dbus.socket",
    "systemd-logind.service",
    "user@.service",
    "user-runtime-dir@.service",
)
OWN = {
    **dict.fromkeys(("sysinit.target", "basic.target", "shutdown.target"), "[Unit]\n"),
    "orch-sshd.service": """[Unit]
Requires=systemd-logind.service
After=systemd-logind.service
[Service]
ExecStart={sshd}
StandardError=append:{base}/sshd.log
""",
}
NEEDED = (
    *(UNITS / name for name in STOCK),
    Path("/usr/lib/systemd/user/dbus.socket"),
    Path("/usr/share/pam-configs/systemd"),
)
SPACES = ("--pid", "--mount", "--cgroup", "--ipc", "--uts", "--mount-proc", "--fork")
# What pid 1 does before it is systemd. $1 is the server's folder, $2 its user's name.
ENTER = """
set -e
mount -t tmpfs -o mode=755 none /var/lib/systemd
mkdir /var/lib/systemd/linger
touch "/var/lib/systemd/linger/$2"
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/base /run/lock /run/sshd /run/systemd/logind.conf.d
printf '[Login]\\nKillUserProcesses=yes\\n' >/run/systemd/logind.conf.d/kill.conf
mount --bind "$1" /run/base
mount -t tmpfs -o mode=1777 none /tmp
mkdir -p "$1"
mount --move /run/base "$1"
for place in /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 none "$place"; done
mount -t cgroup2 none /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
for place in / /dev /sys /proc/sys; do mount -o remount,bind,ro "$place"; done
exec env -i container=orch SYSTEMD_UNIT_PATH="$1/units" SYSTEMD_GENERATOR_PATH=/run/none \\
  /lib/systemd/systemd --system --unit=orch-sshd.service \\
  --log-target=null --default-standard-output=null --show-status=0
"""


def why_not() -> str | None:
    """Why such a machine cannot be made here; None when it can."""
    if os.geteuid() != 0:
        return "not root"
    absent = [str(path) for path in NEEDED if not path.exists()]
    if absent:
        return f"not installed: {', '.join(absent)}"
    hierarchy = _hierarchy()
    if hierarchy is None or not os.access(hierarchy, os.W_OK):
        return "no cgroup2 file system to write to"
    mount = ["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"]
    done = subprocess.run(["unshare", *SPACES, *mount], capture_output=True, timeout=20)
    return None if done.returncode == 0 else "root, but not allowed to make namespaces"


class Machine(PrivateSshd):
    """Its sshd makes real logins. What they leave running is killed, and its user lingers."""

    def __init__(self) -> None:
        super().__init__(config={"UsePAM": "yes"})
        self._group: Path | None = None

    def stop_listener(self) -> None:
        """The whole machine is gone, with its cgroups."""
        processes.end(self._children())
        super().stop_listener()
        if self._group is not None:
            _remove(self._group)
        self._group = None

    def logins(self) -> list[str]:
        """What its logind knows of open logins."""
        init = next(p for p in self._children() if processes.parent_of(p) == self.listener_pid)
        return os.listdir(f"/proc/{init}/root/run/systemd/sessions")

    def _execute(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        units = self.base / "units"
        units.mkdir(exist_ok=True)
        for name in STOCK:
            shutil.copy(UNITS / name, units)
        for name, text in OWN.items():
            (units / name).write_text(text.format(sshd=shlex.join(argv), base=self.base))
        hierarchy = _hierarchy()
        assert hierarchy is not None, why_not()
        self._group = hierarchy / f"orch-test-{self.token}"
        self._group.mkdir()
        # It enters the cgroup before it makes that the root of its own; it ends with the tests.
        enter = ["sh", "-c", 'echo 0 >"$0/cgroup.procs"; exec "$@"', str(self._group)]
        inner = ["unshare", *SPACES, "--kill-child", "sh", "-c", ENTER, "enter"]
        argv = ["setpriv", "--pdeathsig", "KILL", *enter, *inner, str(self.base), self.user]
        return super()._execute(argv, log)


def _hierarchy() -> Path | None:
    """Where cgroups of version 2 are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(place)
    return None


def _remove(group: Path, deadline_s: float = 10.0) -> None:
    """The cgroup and those below it are gone; their processes may be on their way out."""
    until = time.monotonic() + deadline_s
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
