"""Entry point of the agent, as a package here and as the top of the folder that lies on a host."""

from __future__ import annotations

from remote.agent import main

raise SystemExit(main())
