"""The commands, by what they are about; `orchestrator.cli` puts them together."""
