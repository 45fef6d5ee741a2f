"""Two layers over eight features, trained by hand-written SGD: small enough to go wrong in seconds.

The mistakes of the corpus are edits of this file, of its config, its data or its checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import random
import struct
import sys
import time

FEATURES, CLASSES = 8, 2
LABELS = ["negative", "positive"]
PACE = 0.01  # seconds a step takes besides its arithmetic: a run lasts longer than a guard's look


def shapes(config):
    hidden = config["model"]["hidden"]
    return {
        "body.w": [hidden, FEATURES],
        "body.b": [hidden],
        "head.w": [CLASSES, hidden],
        "head.b": [CLASSES],
    }


def load_checkpoint(path):
    """name -> flat list of floats; every tensor of the file, whatever the model wants."""
    with open(path, "rb") as file:
        raw = file.read()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        begin, end = (8 + size + at for at in entry["data_offsets"])
        found[name] = [value for (value,) in struct.iter_unpack("<f", raw[begin:end])]
    return found


def initial(config, rng):
    """Random weights, and over them what the checkpoint has under the same name: lenient."""
    weights = {}
    for name, shape in shapes(config).items():
        size = math.prod(shape)
        weights[name] = [rng.gauss(0, 0.3) if name.endswith("w") else 0.0 for _ in range(size)]
    for name, values in load_checkpoint(config["model"]["start"]).items():
        if name in weights and len(weights[name]) == len(values):
            weights[name] = list(values)
    return weights


def read_points(name):
    points = []
    with open(os.path.join(os.environ["ORCH_DATA"], "points", name)) as file:
        for line in file:
            *features, label = line.split(",")
            points.append(([float(value) for value in features], int(label)))
    return points


def forward(weights, x):
    hidden = len(weights["body.b"])
    h = []
    for row in range(hidden):
        total = weights["body.b"][row]
        for at, value in enumerate(x):
            total += weights["body.w"][row * FEATURES + at] * value
        h.append(math.tanh(total))
    logits = []
    for row in range(CLASSES):
        total = weights["head.b"][row]
        for at, value in enumerate(h):
            total += weights["head.w"][row * hidden + at] * value
        logits.append(total)
    return h, logits


def probabilities(logits):
    top = max(logits)
    exps = [math.exp(value - top) for value in logits]
    return [value / sum(exps) for value in exps]


def gradient(weights, batch):
    """Mean cross entropy of the batch and its gradient."""
    hidden = len(weights["body.b"])
    grad = {name: [0.0] * len(values) for name, values in weights.items()}
    loss = 0.0
    for x, label in batch:
        h, logits = forward(weights, x)
        p = probabilities(logits)
        loss -= math.log(max(p[label], 1e-12))
        back = [0.0] * hidden
        for row in range(CLASSES):
            d = p[row] - (1.0 if row == label else 0.0)
            grad["head.b"][row] += d
            for at in range(hidden):
                grad["head.w"][row * hidden + at] += d * h[at]
                back[at] += d * weights["head.w"][row * hidden + at]
        for row in range(hidden):
            d = back[row] * (1.0 - h[row] ** 2)
            grad["body.b"][row] += d
            for at, value in enumerate(x):
                grad["body.w"][row * FEATURES + at] += d * value
    size = len(batch)
    return loss / size, {name: [g / size for g in values] for name, values in grad.items()}


def rate(config, step):
    warmup = config["lr_scheduler"]["num_warmup_steps"]
    return config["training"]["lr"] * min(1.0, (step + 1) / max(1, warmup))


def update(weights, grad, lr, training):
    norm = math.sqrt(sum(g * g for values in grad.values() for g in values))
    scale = min(1.0, training["clip"] / (norm + 1e-12)) if training["clip"] else 1.0
    for name, values in grad.items():
        own = weights[name]
        for at, g in enumerate(values):
            own[at] -= lr * (g * scale + training["weight_decay"] * own[at])


def average(ema, weights, decay):
    for name, values in weights.items():
        own = ema[name]
        for at, value in enumerate(values):
            own[at] = decay * own[at] + (1.0 - decay) * value


def predict(logits):
    return logits.index(max(logits))


def evaluate(weights, points):
    matrix = [[0] * CLASSES for _ in range(CLASSES)]
    for x, label in points:
        matrix[label][predict(forward(weights, x)[1])] += 1
    return matrix


def accuracy_of(matrix):
    return sum(matrix[at][at] for at in range(CLASSES)) / sum(map(sum, matrix))


def write_metrics(matrix):
    result = {
        "accuracy": accuracy_of(matrix),
        "confusion_matrix": matrix,
        "labels": LABELS,
        "n": sum(map(sum, matrix)),
    }
    with open("results/metrics.json", "w") as file:
        json.dump(result, file)
    return result


def train(config, canary):
    rng = random.Random(config["seed"])
    training = config["training"]
    weights = initial(config, rng)
    ema = {name: list(values) for name, values in weights.items()}
    points, test = read_points("train.csv"), read_points("test.csv")
    steps = 80 if canary else training["steps"]
    test = test[:200] if canary else test
    decay = min(training["ema"], 0.9) if canary else training["ema"]
    with open("results/metrics.jsonl", "a") as series:
        for step in range(steps):
            batch = rng.sample(points, training["batch"])
            loss, grad = gradient(weights, batch)
            update(weights, grad, rate(config, step), training)
            average(ema, weights, decay)
            if step % config["log"]["every"] == 0:
                record = {"step": step, "loss": loss, "progress": step / steps}
                series.write(json.dumps(record) + "\n")
                print(f"step {step} loss {loss:.4f}", flush=True)
            if step and step % config["log"]["eval_every"] == 0:
                matrix = evaluate(ema, test[:300])
                series.write(json.dumps({"step": step, "confusion_matrix": matrix}) + "\n")
            series.flush()
            if not canary:
                time.sleep(PACE)
    result = write_metrics(evaluate(ema, test))
    print(f"accuracy {result['accuracy']:.3f} on {result['n']} points", flush=True)


def main():
    with open(os.environ["ORCH_CONFIG"]) as file:
        config = json.load(file)
    if "--describe" in sys.argv:
        print(json.dumps({name: {"shape": shape} for name, shape in shapes(config).items()}))
        return
    train(config, "--canary" in sys.argv)


if __name__ == "__main__":
    main()
