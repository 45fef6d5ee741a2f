"""A small training job with the standard library only: two clouds of points, one straight line.

It shows all that a job has to do: read its config, print as it goes, write one line of JSON a step
to metrics.jsonl and its final word to metrics.json.
"""

import json
import math
import os
import random
from pathlib import Path


def make_points(rng, count, noise):
    """`count` pairs (features, label); label 1 lies up and to the right of label 0."""
    points = []
    for _ in range(count):
        label = int(rng.random() < 0.45)
        centre = 0.5 if label else -0.5
        features = [rng.gauss(centre, noise) for _ in range(3)] + [1.0]  # the last is the bias
        points.append((features, label))
    return points


def probability(weights, features):
    score = sum(w * x for w, x in zip(weights, features))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))


def train_epoch(rng, weights, points, lr, l2):
    """One pass in random order; the weights are changed in place. Returns the mean loss."""
    rng.shuffle(points)
    total = 0.0
    for features, label in points:
        p = probability(weights, features)
        total -= math.log(max(p if label else 1.0 - p, 1e-12))
        for i, x in enumerate(features):
            weights[i] -= lr * ((p - label) * x + l2 * weights[i])
    return total / len(points)


def evaluate(weights, points):
    """The confusion matrix: rows are the true labels, columns the predicted ones."""
    matrix = [[0, 0], [0, 0]]
    for features, label in points:
        matrix[label][int(probability(weights, features) >= 0.5)] += 1
    return matrix


def main():
    config = json.loads(Path(os.environ["ORCH_CONFIG"]).read_text(encoding="utf-8"))
    results = Path(os.environ["ORCH_RESULTS_DIR"])
    results.mkdir(parents=True, exist_ok=True)

    data, train = config["data"], config["train"]
    rng = random.Random(config["seed"])
    train_points = make_points(rng, data["train"], data["noise"])
    test_points = make_points(rng, data["test"], data["noise"])

    print(f"{len(train_points)} points to learn from, {len(test_points)} to test on", flush=True)
    weights = [0.0] * len(train_points[0][0])
    with open(results / "metrics.jsonl", "w", encoding="utf-8") as series:
        for epoch in range(1, train["epochs"] + 1):
            lr = train["lr"] / epoch
            loss = train_epoch(rng, weights, train_points, lr, train["l2"])
            series.write(json.dumps({"step": epoch, "loss": loss, "lr": lr}) + "\n")
            series.flush()
            print(f"epoch {epoch:3d}  loss {loss:.4f}", flush=True)

    matrix = evaluate(weights, test_points)
    final = {
        "accuracy": (matrix[0][0] + matrix[1][1]) / len(test_points),
        "confusion_matrix": matrix,
        "labels": ["lower-left", "upper-right"],
        "n": len(test_points),
    }
    # Written beside and renamed, so that nobody ever reads half of it.
    part = results / "metrics.json.part"
    part.write_text(json.dumps(final, indent=2) + "\n", encoding="utf-8")
    part.replace(results / "metrics.json")
    print(f"accuracy {final['accuracy']:.3f} on {final['n']} points", flush=True)


if __name__ == "__main__":
    main()
