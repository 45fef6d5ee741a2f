"""What can go wrong in a job, cut by what its reader should do next.

JobError (1)         the machine lacks disk, memory or a package; what was saved before is whole
├── ConfigError (2)    the config says something the code does not know: fix the config
├── DataError (3)      a data file is missing or malformed: fetch it, or name another data set
├── CheckpointError (4) a checkpoint does not fit the model: nothing was loaded
└── TrainingError (5)  training went wrong (loss not finite, two equal models): read the log
"""

from __future__ import annotations

from pathlib import Path


class JobError(Exception):
    """Stops the job; `str(error)` is one line for a person, `exit_code` is the process's."""

    exit_code = 1


class ConfigError(JobError):
    exit_code = 2


class PlaceError(ConfigError):
    """Of this process among those of torchrun: no other need have met it."""


class DataError(JobError):
    exit_code = 3


class CheckpointError(JobError):
    exit_code = 4


class TrainingError(JobError):
    exit_code = 5


# What torch says where it has no error of its own for it: on a CPU, of a GPU's own allocations, of
# compiled parts, of cuBLAS and cuDNN.
NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "[CUDA]: out of memory",
    "_STATUS_ALLOC_FAILED",
)
ALIKE = (ConfigError, DataError, CheckpointError)  # what every process of a job meets


def in_one_line(error: Exception, results: Path) -> tuple[str, int] | None:
    """What to tell a person, and the exit code; None: a fault of the code, whose traceback tells
    more. `results`: where the job was writing, for an error that names no file."""
    if isinstance(error, JobError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        place, why = error.filename or results, error.strerror or error
        return f"{place}: {why}; what was saved before is whole, and the job can go on from it", 1
    if no_memory(error):
        first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        return (
            f"not enough memory: {first[:300]}; a smaller loader.global_batch_size, eval.round or "
            "model takes less",
            1,
        )
    return None


def no_memory(error: Exception) -> bool:
    """Of a GPU or of the machine: torch's error, known by its name, or python's."""
    if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
        return True
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
