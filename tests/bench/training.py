"""What training and evaluating cost, against the reference implementation's recipe.

    python -m tests.bench.training [--write docs/results/cost.json] [--only evaluation]
    python -m tests.bench.training --only gpu --write docs/results/cost.json     on a host with one

The recipe, after the facts of the two reference repositories: scores of the whole vocabulary at
every position, texts padded to the model's length and the padding attended, and for evaluation the
training loss as a score, with noise of its own for each class and pass. Network, optimizer,
averaging and data are the same on both sides. Needs ORCH_DATA with sst2/, on a GPU with imdb/.
There, training is in bf16 on both sides, and how much of the GPU's peak ours uses is measured for
the model of the profile and for the published size `small`, over steps after the first few.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from jobs.textdiff import (
    checkpoint,
    config,
    data,
    diffusion,
    evaluate,
    objectives,
    parallel,
    tokenizer,
)
from jobs.textdiff.batches import Batch, Batches
from jobs.textdiff.classifier import Classifier
from jobs.textdiff.config import Config
from jobs.textdiff.model import Denoiser, shape_of
from jobs.textdiff.parallel import World, named
from jobs.textdiff.tokenizer import Tokenizer
from jobs.textdiff.train import Ema, Hooks, Schedule, StepReport, fit, memory_mb, precision
from orchestrator import spec

ROOT = Path(__file__).parents[2]
JOB = "mdlm-pretrained-fixed"
CPU = torch.device("cpu")
RECIPE = "full-vocabulary scores at every position, padded to length, one draw per class and pass"
WAYS = ("reference", "ours")
MOST_PASSES = 512
PARTS = ("training", "evaluation", "gpu")
WARM = 5  # steps before the clock starts: memory is allocated, on a GPU parts are compiled
GPU_BATCH = 64  # texts a step: with more, the reference's scores do not fit into 80 GB


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.training", description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument(
        "--only", choices=PARTS, help="the other parts are kept as --write has them"
    )
    parser.add_argument("--one", choices=WAYS, help="used by the bench itself")
    args = parser.parse_args(argv)
    if args.only and not (args.write and args.write.is_file()):
        parser.error("--only needs --write with a file that has the other parts")
    torch.set_num_threads(min(2, torch.get_num_threads()))
    if args.one:
        print(json.dumps(train(args.one, args.steps)))
        return 0
    found = {"recipe": RECIPE}
    if args.only:
        found = json.loads(args.write.read_text(encoding="utf8"))
    if args.only in (None, "training"):
        found["conditions"] = (
            f"SST-2 sentences, profile `cpu` of `{JOB}`, {named(World(0, 1, CPU))}, torch "
            f"{torch.__version__}, python {platform.python_version()}; medians of {args.turns} "
            f"turns of {args.steps} steps."
        )
        found["training"] = training(args.steps, args.turns)
    if args.only in (None, "evaluation"):
        found["evaluation"] = evaluation(args.texts)
    if args.only == "gpu":
        found["gpu"] = on_gpu(args.steps, args.turns)
    text = json.dumps(found, indent=2)
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(text + "\n", encoding="utf8")
    print(text)
    return 0


# -- training -------------------------------------------------------------------------------------


def training(steps: int, turns: int) -> dict[str, Any]:
    """Medians of both ways, turn by turn, each turn a process of its own."""
    found: dict[str, list[Mapping[str, float]]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way in WAYS:
            argv = [sys.executable, "-m", "tests.bench.training", "--one", way]
            done = subprocess.run(
                [*argv, "--steps", str(steps)], cwd=ROOT, check=True, stdout=subprocess.PIPE
            )
            found[way].append(json.loads(done.stdout))
    return _compared(found)


def _compared(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    medians = {
        way: {key: statistics.median(turn[key] for turn in found[way]) for key in found[way][0]}
        for way in WAYS
    }
    pairs = zip(found["ours"], found["reference"], strict=True)
    return {
        **medians,
        "ratio": statistics.median(o["tokens_per_s"] / r["tokens_per_s"] for o, r in pairs),
    }


def train(way: str, steps: int) -> dict[str, float]:
    """Tokens per second, padding not counted, and peak memory above that before the first step."""
    settings = _config("cpu", {"data.name": "sst2", "data.phrases": "false"})
    dataset = data.load(settings.data, settings.seed, Path(os.environ["ORCH_DATA"]))
    words = tokenizer.make(settings.data, dataset.train.texts, settings.model.length, None)
    return _train(way, steps, settings, words, words.encode_all(dataset.train.texts), CPU)


def _train(
    way: str,
    steps: int,
    settings: Config,
    words: Tokenizer,
    ids: Sequence[list[int]],
    device: torch.device,
) -> dict[str, float]:
    torch.manual_seed(1)
    model = Denoiser(shape_of(settings.model), words.rows(causal=False), settings.model.dropout)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=device.type == "cuda")
    ema = Ema(model, 0.9999)
    loss_of = (_ours if way == "ours" else _reference)(model, settings, words, device)
    stream = Batches(ids, settings.loader.global_batch_size, "bench")
    before, tokens, began = memory_mb(device), 0, 0.0
    for step in range(1, steps + WARM + 1):
        if step == WARM + 1:
            _finish(device)
            began, tokens = time.monotonic(), 0
        batch = stream.at(step)
        with precision(settings, device):
            loss = loss_of(batch, Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update(model)
        tokens += batch.tokens
    _finish(device)
    spent = time.monotonic() - began
    return {"tokens_per_s": tokens / spent, "memory_mb": memory_mb(device) - before}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


Loss = Callable[[Batch, Generator], Tensor]


def _ours(model: Denoiser, settings: Config, words: Tokenizer, device: torch.device) -> Loss:
    objective = objectives.Diffusion(model, settings, words)

    def loss_of(batch: Batch, generator: Generator) -> Tensor:
        return objective(*(x.to(device) for x in objective.prepare(batch, generator))).sum()

    return loss_of


def _reference(model: Denoiser, settings: Config, words: Tokenizer, device: torch.device) -> Loss:
    def loss_of(batch: Batch, generator: Generator) -> Tensor:
        clean_BL, valid_BL = _padded(batch, settings.model.length)
        drawn = objectives.draw_masks(settings, torch.ones_like(valid_BL), generator)
        masked_BL, weight_B, clean_BL, valid_BL = (
            x.to(device) for x in (*drawn, clean_BL, valid_BL)
        )
        nll_BL = reference_nll(model, clean_BL, masked_BL, words.mask_id)
        return (weight_B[:, None] * nll_BL * valid_BL).sum() / valid_BL.sum()

    return loss_of


def reference_nll(
    model: Denoiser,
    clean_BL: Tensor,
    masked_BL: Tensor,
    mask_id: int,
    valid_BL: Tensor | None = None,
) -> Tensor:
    """[B, L] -log p of each token by the definition: all positions, the whole vocabulary."""
    noisy_BL = torch.where(masked_BL, mask_id, clean_BL)
    logits_BLV = model.logits(model.features(noisy_BL, valid_BL))
    log_probs_BLV = diffusion.subs_log_probs(logits_BLV, noisy_BL, mask_id)
    return -log_probs_BLV.gather(-1, clean_BL[..., None])[..., 0]


def _padded(batch: Batch, length: int) -> tuple[Tensor, Tensor]:
    more = (0, length - batch.tokens_BL.shape[1])
    pad = torch.nn.functional.pad
    return pad(batch.tokens_BL, more), pad(batch.valid_BL, more)


# -- on a GPU -------------------------------------------------------------------------------------


def on_gpu(steps: int, turns: int) -> dict[str, Any]:
    """Both ways turn by turn in this process, and the share of the GPU's peak that `fit` uses."""
    found_world = parallel.world({})
    device = found_world.device
    if device.type != "cuda":
        raise SystemExit("error: no GPU here")
    settings = _config("gpu", {"loader.global_batch_size": str(GPU_BATCH)})
    dataset = data.load(settings.data, settings.seed, Path(os.environ["ORCH_DATA"]))
    words = tokenizer.make(settings.data, dataset.train.texts, settings.model.length, None)
    ids = words.encode_all(dataset.train.texts)
    found: dict[str, list[Mapping[str, float]]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way in WAYS:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            found[way].append(_train(way, steps, settings, words, ids, device))
    published = {f"model.{key}": "null" for key in ("hidden_size", "n_blocks", "n_heads")}
    published["loader.global_batch_size"] = str(2 * GPU_BATCH)
    used = {}
    for name, overrides in (("profile `gpu`", {}), ("size `small`", published)):
        own = _config("gpu", {**overrides, "data.name": "imdb"})
        used[name] = _utilisation(own, words, ids, found_world, steps)
    return {
        "conditions": (
            f"IMDb, model of the profile `gpu` of `{JOB}`, {GPU_BATCH} texts a step, bf16, "
            f"{named(found_world)}, torch {torch.__version__}; medians of {turns} turns of "
            f"{steps} steps in one process."
        ),
        "training": _compared(found),
        "utilisation": used,
    }


def _utilisation(
    settings: Config, words: Tokenizer, ids: Sequence[list[int]], world: World, steps: int
) -> dict[str, float]:
    """The median step of `fit`, the first few left out; at the profile's own batch."""
    torch.manual_seed(1)
    model = Denoiser(shape_of(settings.model), words.rows(causal=False), settings.model.dropout)
    model.to(world.device)
    reports: list[StepReport] = []
    torch.cuda.reset_peak_memory_stats(world.device)
    fit(
        objectives.Diffusion(model, settings, words), ids, settings,
        Schedule(steps + WARM, 1e-3, 5), world, seed="bench", hooks=Hooks(report=reports.append),
    )  # fmt: skip
    steady = reports[WARM:]
    spent = sum(report.tokens / report.tokens_per_s for report in steady)
    return {
        "tokens_per_s": sum(report.tokens for report in steady) / spent,
        "mfu": sum(report.flops for report in steady) / spent / (world.peak or math.nan),
        "texts_a_step": settings.loader.global_batch_size,
        "memory_mb": reports[-1].memory_mb,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


# -- evaluation -----------------------------------------------------------------------------------


def evaluation(texts: int) -> dict[str, Any]:
    """Passes that each way needs for one accuracy, with the same two models, made here."""
    with tempfile.TemporaryDirectory() as folder:
        judge, split = _trained(Path(folder), texts)
    ids = judge.tokenizer.encode_all(split.texts)
    began = time.monotonic()
    scored = [text for _, text in sorted(evaluate.score(judge, ids).items())]
    spent = time.monotonic() - began
    accuracy = _accuracy([text.scores for text in scored], split.labels)
    passes = statistics.fmean(text.draws for text in scored)
    tokens = sum(2 * text.draws * text.tokens for text in scored)
    curve, reference_speed = _reference_curve(judge, ids, split, accuracy)
    reached = [count for count, value in curve if value >= accuracy]
    needed = reached[0] if reached else MOST_PASSES
    least = needed // 2 if reached else MOST_PASSES  # passes that were not enough
    note = f"Reference by passes: {', '.join(f'{n}: {100 * a:.1f} %' for n, a in curve)}. "
    if reached:
        note += "Only powers of two were looked at, so the ratio is a lower bound."
    else:
        note += f"It did not get there within {MOST_PASSES} passes: the ratio is a lower bound."
    return {
        "ours": {"passes": passes, "accuracy": accuracy, "tokens_per_s": tokens / spent},
        "reference": {
            "passes": f"> {least}, {needed} suffice" if reached else f"> {least}",
            "accuracy": dict(curve)[needed],
            "tokens_per_s": reference_speed,
        },
        "ratio": least / passes,
        "note": f"{len(ids)} self-made texts, models of the profile `cpu-smoke`. {note}",
    }


def _trained(folder: Path, texts: int) -> tuple[Classifier, data.Split]:
    """A pair of models by the job's own command, and the texts to judge."""
    job = spec.load_job(ROOT, JOB, profile="cpu-smoke")
    (folder / "config.json").write_text(json.dumps(job.config))
    env = {"ORCH_CONFIG": str(folder / "config.json"), "ORCH_RESULTS_DIR": str(folder / "out")}
    subprocess.run(
        [sys.executable, "-m", "jobs.textdiff.pipeline"],
        cwd=ROOT, env={**os.environ, **job.env, **env}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    settings = config.from_tree(job.config)
    settings = replace(settings, eval=replace(settings.eval, draws=32, round=8, stop_z=3.0))
    models = []
    for label in (0, 1):
        found = checkpoint.read(folder / "out" / "checkpoints" / f"class-{label}.pt")
        words = tokenizer.restored(*found.tokenizer, settings.model.length)
        model = Denoiser(shape_of(settings.model), words.rows(causal=False), 0.0).eval()
        checkpoint.load_into(model, found.weights)
        models.append(model)
    dataset = data.load(settings.data, settings.seed, None)
    split = data.sample(dataset.test, texts, settings.seed)
    return Classifier(models, dataset.labels, words, settings), split


def _reference_curve(
    judge: Classifier, ids: Sequence[list[int]], split: data.Split, target: float
) -> tuple[list[tuple[int, float]], float]:
    """(passes, accuracy) at powers of two until `target` is reached, and tokens per second."""
    settings, mask_id = judge.config, judge.tokenizer.mask_id
    batch = _batch(ids, settings.model.length)
    total = torch.zeros(len(ids), 2)
    curve, begun, tokens = [], time.monotonic(), 0
    for turn in range(1, MOST_PASSES + 1):
        for label, model in enumerate(judge.models):
            generator = Generator().manual_seed(random.Random(f"{turn}:{label}").getrandbits(62))
            masked, weight = objectives.draw_masks(
                settings, torch.ones_like(batch.valid_BL), generator
            )
            with torch.inference_mode():
                # These models never saw padding in training, so here it is not attended.
                nll = reference_nll(model, batch.tokens_BL, masked, mask_id, batch.valid_BL)
            total[:, label] += (weight[:, None] * nll * batch.valid_BL).sum(1)
            tokens += batch.tokens
        if math.log2(turn).is_integer():
            curve.append((turn, _accuracy(total.tolist(), split.labels)))
            if curve[-1][1] >= target:
                break
    return curve, tokens / (time.monotonic() - begun)


def _batch(ids: Sequence[list[int]], length: int) -> Batch:
    tokens = torch.tensor([[*own, *[0] * (length - len(own))] for own in ids])
    valid = torch.arange(length) < torch.tensor([len(own) for own in ids])[:, None]
    return Batch(tokens, valid, tuple(range(len(ids))))


def _accuracy(costs: Sequence[Sequence[float]], labels: Sequence[int]) -> float:
    decisions = evaluate.choose(costs, 1)
    return statistics.fmean(d.predicted == t for d, t in zip(decisions, labels, strict=True))


def _config(profile: str, overrides: Mapping[str, str]) -> Config:
    return config.from_tree(spec.load_job(ROOT, JOB, profile=profile, overrides=overrides).config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
