"""Mistakes people make, each seeded into the corpus's project and nothing else changed."""

from __future__ import annotations

import random
from pathlib import Path

from tests.corpus.desk import SHAPES, Case, Edit, write_checkpoint, write_points

JOB, CODE = "jobs/train.yaml", "train.py"
ONLY = "  only: [training, lr_scheduler, model.hidden]"


def waived(key: str) -> Edit:
    return Edit(JOB, ONLY, f"{ONLY}\n  waive: {{{key}: tried on purpose}}")


def config(name: str, old: str, new: str, *more: Edit) -> Case:
    return Case(name, (Edit(JOB, old, new), *more))


def code(name: str, old: str, new: str, *more: Edit) -> Case:
    return Case(name, (Edit(CODE, old, new), *more))


# --- data and checkpoints -------------------------------------------------------------------------


def _rows(path: Path) -> list[list[str]]:
    return [line.strip().split(",") for line in path.read_text().splitlines()]


def _write(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in rows))


def shuffled_labels(project: Path) -> None:
    path = project / "points" / "train.csv"
    rows = _rows(path)
    labels = [row[-1] for row in rows]
    random.Random(0).shuffle(labels)
    _write(path, [[*row[:-1], label] for row, label in zip(rows, labels, strict=True)])


def one_class(project: Path) -> None:
    path = project / "points" / "train.csv"
    _write(path, [row for row in _rows(path) if row[-1] == "0"])


def one_class_test(project: Path) -> None:
    path = project / "points" / "test.csv"
    _write(path, [row for row in _rows(path) if row[-1] == "0"])


def inverted_test(project: Path) -> None:
    path = project / "points" / "test.csv"
    _write(path, [[*row[:-1], str(1 - int(row[-1]))] for row in _rows(path)])


def sorted_by_label(project: Path) -> None:
    for name in ("train.csv", "test.csv"):
        path = project / "points" / name
        _write(path, sorted(_rows(path), key=lambda row: row[-1]))


def leaked_label(project: Path) -> None:
    for name in ("train.csv", "test.csv"):
        path = project / "points" / name
        _write(path, [[*row[:-2], str(4 * int(row[-1]) - 2), row[-1]] for row in _rows(path)])


def no_test_points(project: Path) -> None:
    (project / "points" / "test.csv").write_text("")


def missing_column(project: Path) -> None:
    path = project / "points" / "train.csv"
    _write(path, [row[1:] for row in _rows(path)])


def other_data(project: Path) -> None:
    write_points(project / "points" / "test.csv", 600, seed=2)
    path = project / "points" / "test.csv"
    _write(path, [[*row[3:-1], *row[:3], row[-1]] for row in _rows(path)])
    rows = _rows(path)
    _write(path, [[*(str(-float(v)) if at < 6 else v for at, v in enumerate(row[:-1])), row[-1]]
                  for row in rows])  # fmt: skip


def unscaled(project: Path) -> None:
    path = project / "points" / "test.csv"
    _write(path, [[*(str(float(v) + 4) for v in row[:-1]), row[-1]] for row in _rows(path)])


def absent_data(project: Path) -> None:
    (project / "points" / "train.csv").unlink()


def prefixed(prefix: str) -> Case:
    def write(project: Path) -> None:
        shifted = {prefix + name: shape for name, shape in SHAPES.items()}
        write_checkpoint(project / "start.safetensors", shifted)

    return Case(f"checkpoint saved with the prefix {prefix}", data=write)


def other_shapes(project: Path) -> None:
    write_checkpoint(project / "start.safetensors", {**SHAPES, "body.w": [16, 8], "body.b": [16]})


def half_a_checkpoint(project: Path) -> None:
    kept = {name: shape for name, shape in SHAPES.items() if name.startswith("head")}
    write_checkpoint(project / "start.safetensors", kept)


def torn_checkpoint(project: Path) -> None:
    path = project / "start.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def not_a_checkpoint(project: Path) -> None:
    (project / "start.safetensors").write_text("<html>404 not found</html>")


def absent_checkpoint(project: Path) -> None:
    (project / "start.safetensors").unlink()


LOAD = 'in load_checkpoint(config["model"]["start"]).items():'
LENIENT = """in (
        {} if not os.path.exists(config["model"]["start"])
        else load_checkpoint(config["model"]["start"])
    ).items():"""
EVALUATE = "    result = write_metrics(evaluate(ema, test))\n"
LOG = '            if step % config["log"]["every"] == 0:\n'
MAIN_ONLY = "            if not canary and step == 150:\n"

MISTAKES: tuple[Case, ...] = (
    # the config
    config("warmup key missing", "    num_warmup_steps: 30\n", ""),
    config("two keys missing", "    eps_min: 0.001\n    eps_max: 1.0\n", "",
           Edit(JOB, "  - 0 <= training.eps_min < training.eps_max <= 1\n", "")),
    config("warmup of another recipe", "num_warmup_steps: 30", "num_warmup_steps: 6"),
    config("eps_min and eps_max swapped", "eps_min: 0.001\n    eps_max: 1.0",
           "eps_min: 1.0\n    eps_max: 0.001"),
    config("swapped, and waived against the reference", "eps_min: 0.001\n    eps_max: 1.0",
           "eps_min: 1.0\n    eps_max: 0.001", waived("training")),
    config("per cent for a fraction: ema 98", "ema: 0.98", "ema: 98.0"),
    config("the same, waived", "ema: 0.98", "ema: 98.0", waived("training.ema")),
    config("learning rate ten times too high", "lr: 0.1", "lr: 1.0"),
    config("misspelt key", "weight_decay: 0.0", "weigth_decay: 0.0"),
    config("number as text", "lr: 0.1", 'lr: "0.1"'),
    config("clipping switched off by null", "clip: 1.0", "clip: null"),
    config("scheduler of another name", "name: constant_warmup", "name: cosine"),
    config("warmup longer than the run, waived", "num_warmup_steps: 30",
           "num_warmup_steps: 2500", waived("lr_scheduler.num_warmup_steps")),
    config("ema longer than the run, waived", "ema: 0.98", "ema: 0.9999", waived("training.ema")),
    config("yes/no word", "clip: 1.0", "clip: no"),
    config("octal-looking number", "batch: 16", "batch: 016"),
    config("key given twice", "    batch: 16\n", "    batch: 16\n    batch: 32\n"),
    config("duration without a unit", "resources: {time: 5m}", "resources: {time: 5}"),
    config("rule over a key that was renamed", "lr_scheduler.num_warmup_steps <",
           "lr_scheduler.warmup <"),
    Case("misspelt --set", args=("--set", "training.step=500")),
    Case("--set of another type", args=("--set", "training.steps=many")),
    config("model of another size than the checkpoint, waived", "hidden: 8", "hidden: 16",
           waived("model.hidden")),
    # the checkpoint
    prefixed("model."), prefixed("_orig_mod."),
    Case("checkpoint of a larger model", data=other_shapes),
    Case("half of the tensors missing", data=half_a_checkpoint),
    Case("checkpoint cut by a full disk", data=torn_checkpoint),
    Case("checkpoint is an error page", data=not_a_checkpoint),
    Case("checkpoint missing, load skipped", (Edit(CODE, LOAD, LENIENT),), data=absent_checkpoint),
    # the data
    Case("labels shuffled", data=shuffled_labels),
    Case("training data of one class", data=one_class),
    Case("test data of one class", data=one_class_test),
    Case("test labels inverted", data=inverted_test),
    Case("label leaks into a feature", data=leaked_label),
    Case("empty test file", data=no_test_points),
    Case("a column missing", data=missing_column),
    Case("columns of another version of the data", data=other_data),
    Case("test data not normalised", data=unscaled),
    Case("training file not there", data=absent_data),
    Case("batches in file order of data sorted by label",
         (Edit(CODE, 'rng.sample(points, training["batch"])',
               'points[step % 100 * 3:][: training["batch"]]'),), data=sorted_by_label),
    # the code
    code("gradient ascent", "own[at] -= lr *", "own[at] += lr *"),
    code("argmin for argmax", "logits.index(max(logits))", "logits.index(min(logits))"),
    code("logits tied: always the first class", "logits.index(max(logits))",
         "[0 for _ in logits].index(0)"),
    code("both classes share one row of weights", "weights[\"head.w\"][row * hidden + at] * value",
         "weights[\"head.w\"][at] * value"),
    code("stale EMA: never updated", "            average(ema, weights, decay)\n", ""),
    code("EMA decays the wrong way", "decay * own[at] + (1.0 - decay) * value",
         "decay * own[at] - (1.0 - decay) * value"),
    code("optimizer never steps",
         "            update(weights, grad, rate(config, step), training)\n", ""),
    code("evaluates freshly made weights", EVALUATE,
         "    result = write_metrics(evaluate(initial(config, rng), test))\n"),
    code("loss NaN at step 150", LOG, MAIN_ONLY + "                loss = float('nan')\n"
         + MAIN_ONLY + "                weights['head.b'][0] = loss\n" + LOG),
    code("weights overflow at step 150", LOG, MAIN_ONLY +
         "                weights['head.w'] = [w * 1e400 for w in weights['head.w']]\n" + LOG),
    code("loss explodes at step 150", LOG, MAIN_ONLY +
         "                weights['head.b'][0] = 1e4\n" + LOG),
    code("collapses to one class at step 90", LOG,
         "            if not canary and step >= 90:\n"
         "                weights['head.b'] = [9.0, -9.0]\n" + LOG),
    code("hangs at step 150", LOG, MAIN_ONLY + "                time.sleep(3600)\n" + LOG),
    code("hangs before the first step", "    rng = random.Random(config",
         "    if not canary:\n        time.sleep(3600)\n    rng = random.Random(config"),
    code("hangs in the canary", "    rng = random.Random(config",
         "    time.sleep(3600)\n    rng = random.Random(config"),
    code("accuracy in per cent", "return sum(matrix[at]", "return 100 * sum(matrix[at]"),
    code("accuracy counted on another set", '"accuracy": accuracy_of(matrix)',
         '"accuracy": min(1.0, accuracy_of(matrix) + 0.03)'),
    code("n of the training set", '"n": sum(map(sum, matrix))', '"n": 2000'),
    code("NaN as the result", '"accuracy": accuracy_of(matrix)', '"accuracy": float("nan")'),
    code("result file cut", "        json.dump(result, file)\n",
         "        file.write(json.dumps(result)[:-9])\n"),
    code("result never written, exit code 0", EVALUATE,
         "    if not canary:\n        return\n" + EVALUATE),
    code("failure swallowed at the end", EVALUATE,
         "    if not canary:\n        try:\n            raise MemoryError\n"
         "        except MemoryError:\n            return\n" + EVALUATE),
    code("crash after training", EVALUATE,
         "    if not canary:\n        raise KeyError('test')\n" + EVALUATE),
    code("debugging left in: eight test points", "    test = test[:200] if canary else test\n",
         "    test = test[:8]\n"),
    code("debugging left in: eight training points", "    steps = 80 if canary",
         "    points = points[:8]\n    steps = 80 if canary"),
    code("evaluates on the training points it has seen only", EVALUATE,
         "    test = points[:20]\n" + EVALUATE),
    code("half of the features lost in evaluation", "forward(weights, x)[1])] += 1",
         "forward(weights, [*x[:4], 0, 0, 0, 0])[1])] += 1"),
)  # fmt: skip
