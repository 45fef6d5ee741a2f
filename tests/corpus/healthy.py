"""Runs that are fine, and must pass without a word of alarm."""

from __future__ import annotations

from pathlib import Path

from tests.corpus.desk import SHAPES, Case, Edit, write_checkpoint, write_points
from tests.corpus.mistakes import JOB, code, config, waived


def imbalanced(project: Path) -> None:
    for name, count in (("train.csv", 2000), ("test.csv", 600)):
        write_points(project / "points" / name, count, seed=3, share=0.35)


def small_test(project: Path) -> None:
    write_points(project / "points" / "test.csv", 400, seed=5)


def much_data(project: Path) -> None:
    write_points(project / "points" / "train.csv", 6000, seed=6)


def wider(project: Path) -> None:
    shapes = {**SHAPES, "body.w": [12, 8], "body.b": [12], "head.w": [2, 12]}
    write_checkpoint(project / "start.safetensors", shapes)


def with_more(project: Path) -> None:
    write_checkpoint(project / "start.safetensors", {**SHAPES, "optimizer.step": [1]})


LOG = '            if step % config["log"]["every"] == 0:\n'

HEALTHY: tuple[Case, ...] = (
    *(Case(f"as it is, seed {seed}", args=("--set", f"seed={seed}")) for seed in range(1, 9)),
    config("shorter, waived", "steps: 300", "steps: 200", waived("training.steps")),
    config("longer, waived", "steps: 300", "steps: 500", waived("training.steps")),
    config("higher rate, waived", "lr: 0.1", "lr: 0.3", waived("training.lr")),
    config("larger batch, waived", "batch: 16", "batch: 48", waived("training.batch")),
    config("no clipping, waived", "clip: 1.0", "clip: null", waived("training.clip")),
    config("weight decay, waived", "weight_decay: 0.0", "weight_decay: 0.001",
           waived("training.weight_decay")),
    config("numbers written another way", "lr: 0.1", "lr: 10e-2"),
    config("logs every step", "every: 10", "every: 1"),
    config("evaluates often", "eval_every: 100", "eval_every: 50"),
    Case("classes of unequal size", data=imbalanced),
    Case("fewer test points", data=small_test),
    Case("three times the data", data=much_data),
    Case("a checkpoint with more than the model", data=with_more),
    Case("a wider model with its own checkpoint",
         (Edit(JOB, "hidden: 8", "hidden: 12"), waived("model.hidden")), data=wider),
    code("slow to start", "    rng = random.Random(config",
         "    time.sleep(4)\n    rng = random.Random(config"),
    code("pauses for six seconds", LOG,
         "            if not canary and step == 150:\n                time.sleep(6)\n" + LOG),
    code("null and text among its metrics", '"loss": loss, "progress"',
         '"loss": loss, "grad": None, "phase": "train", "progress"'),
    code("one loss in fifty is high", LOG,
         "            loss = loss + (3.0 if step % 50 == 49 else 0.0)\n" + LOG),
    code("prints megabytes", LOG, "            print('x' * 20000)\n" + LOG),
    code("numbers as a library writes them", '"loss": loss,', '"loss": round(loss, 3),'),
    code("logs warnings about nan", LOG, "            print('warning: nan ignored')\n" + LOG),
)  # fmt: skip
