"""Controllers, a host and the link between them in one process, under a clock and dice of its own.

The code that runs is the real one: `usecases.submit`, `reconcile`, `cancel`, `fetch`, the ledger,
the wire, the agent with its verbs, the supervisor. Only what it stands on is replaced: processes
take turns, and their locks, pids and clocks are the world's. At each point where a process touches
anything that others can see, the seed decides who goes on, who is killed, whether the link is cut,
the host restarted or its clock moved. The same seed gives the same history.
"""
