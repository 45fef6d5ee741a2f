"""Ways to a host. Import `connect` from `orchestrator.transport.connect`; nothing heavy is here."""
