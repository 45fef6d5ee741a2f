"""Commands in modules of their own; `orchestrator.cli` puts them together."""
