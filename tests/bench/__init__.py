"""The speed table: each piece of work done by `orch` and by hand, in pairs, on a real sshd."""
