"""Desks, servers and proxies for the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import ctx, desk, far_desk, ledger, new_desk, run
from tests.contract.desk import Desk
from tests.faults.hosts import proxied_desk
from tests.helpers.proxy import Proxy
from tests.helpers.sshd import PrivateSshd

__all__ = ["ctx", "desk", "far_desk", "ledger", "new_desk", "run"]  # pytest finds them here


@pytest.fixture
def proxy(sshd: PrivateSshd) -> Iterator[Proxy]:
    """A proxy in front of the module's server."""
    with Proxy(("127.0.0.1", sshd.port)) as running:
        yield running


@pytest.fixture
def proxied(
    new_desk: Callable[..., Desk], sshd: PrivateSshd, proxy: Proxy, tmp_path: Path
) -> Callable[..., Desk]:
    """Makes desks whose host is reached through the proxy."""

    def make(*args: object, **options: object) -> Desk:
        return proxied_desk(new_desk, sshd, proxy, tmp_path / "client", *args, **options)

    return make
