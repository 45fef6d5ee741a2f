"""What can go wrong in a job, cut by what its reader should do next.

JobError (1)
├── ConfigError (2)    the config says something the code does not know: fix the config
├── DataError (3)      a data file is missing or malformed: fetch it, or name another data set
├── CheckpointError (4) a checkpoint does not fit the model: nothing was loaded
└── TrainingError (5)  training went wrong (loss not finite, two equal models): read the log
"""

from __future__ import annotations


class JobError(Exception):
    """Stops the job; `str(error)` is one line for a person, `exit_code` is the process's."""

    exit_code = 1


class ConfigError(JobError):
    exit_code = 2


class DataError(JobError):
    exit_code = 3


class CheckpointError(JobError):
    exit_code = 4


class TrainingError(JobError):
    exit_code = 5
