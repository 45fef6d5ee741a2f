from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import spec

ROOT = Path(__file__).parents[2]
JOB = "mdlm-pretrained-fixed"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny tensors: a second thread is only waited for, long on a busy machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def tree() -> dict[str, Any]:
    """A config so small that the whole pipeline takes seconds, in the main job's own form."""
    return tiny(JOB, "cpu-smoke")


def tiny(name: str, profile: str) -> dict[str, Any]:
    """The config of any of the training jobs, as small."""
    overrides = {
        "data.selfmade_train": "600",
        "data.selfmade_test": "60",
        "data.dev_examples": "20",
        "model.hidden_size": "32",
        "model.cond_dim": "16",
        "model.n_blocks": "1",
        "model.n_heads": "2",
        "training.max_steps": "40",
        "lr_scheduler.num_warmup_steps": "5",
        "loader.global_batch_size": "32",
        "pretrain.steps": "60",
        "pretrain.num_warmup_steps": "5",
        "eval.draws": "4",
        "eval.round": "4",
        "eval.max_examples": "60",
    }
    if name == "gpt2":
        for key in ("model.cond_dim", "eval.draws", "eval.round"):
            del overrides[key]  # which it has no use for
    job = spec.load_job(ROOT, name, profile=profile, overrides=overrides)
    return {key: dict(v) if isinstance(v, dict) else v for key, v in job.config.items()}
