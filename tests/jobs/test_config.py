from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.textdiff import config
from jobs.textdiff.errors import ConfigError
from orchestrator import spec
from orchestrator.checks import reference
from orchestrator.references import reference_tree
from tests.jobs.conftest import JOB, ROOT, tiny

INCIDENT = "mdlm-pretrained"
JOBS = [
    "gpt2", "mdlm-conditional", "mdlm-pretrain", "mdlm-pretrained-fixed", "simple-diffusion",
]  # fmt: skip
EVERY = [
    (name, profile)
    for name in [*JOBS, "baselines"]
    for profile in (None, *spec.load_job(ROOT, name).profiles)
]
Change = Callable[[dict[str, Any]], object]


def test_the_jobs_have_the_profiles_that_they_promise() -> None:
    for name in [*JOBS, INCIDENT, "baselines"]:
        assert {"cpu", "cpu-hour", "gpu"} <= set(spec.load_job(ROOT, name).profiles)


@pytest.mark.parametrize(
    ("name", "profile"), [(name, profile) for name, profile in EVERY if name in JOBS]
)
def test_every_profile_of_every_job_is_a_config(name: str, profile: str | None) -> None:
    job = spec.load_job(ROOT, name, profile=profile)
    built = config.from_tree(job.config)
    assert built.training.sampling_eps_min == 1e-3
    assert built.eval.split == "test"
    assert job.canary is not None
    assert job.reference is not None


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_every_profile_agrees_with_the_reference_but_for_what_it_waives(
    name: str, profile: str | None
) -> None:
    job = spec.load_job(ROOT, name, profile=profile)
    findings = reference.check(job.config, job.reference, reference_tree(ROOT, job.reference))
    assert [f.message for f in findings if f.refuses] == []


@pytest.mark.parametrize("key", ["sampling_eps_min", "sampling_eps_max", "antithetic_sampling"])
def test_a_key_that_the_reference_has_and_the_config_lacks_is_refused_by_both(
    tree: dict[str, Any], key: str
) -> None:
    del tree["training"][key]
    job = spec.load_job(ROOT, JOB, profile="cpu")  # the profile that `tree` is made of
    findings = reference.check(tree, job.reference, reference_tree(ROOT, job.reference))
    assert [f.key for f in findings if f.refuses] == [f"training.{key}"]
    with pytest.raises(ConfigError, match=rf"training\.{key}: missing"):
        config.from_tree(tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["training"].update(emma=1), "training.emma: unknown key; did you mean"),
        (lambda t: t.update(sed=1), "sed: unknown key; did you mean seed"),
        (lambda t: t.update(model=3), "model: expected a mapping, got int"),
        (lambda t: t.update(seed=True), "seed: expected int, got a boolean (true)"),
        (lambda t: t.update(seed=1.0), "seed: expected int, got float"),
        (lambda t: t["optim"].update(lr="1e-3"), "optim.lr: expected float, got text"),
        (lambda t: t["optim"].update(lr=None), "optim.lr: expected float, got null"),
        (lambda t: t["optim"].update(lr=0), "optim.lr: must be above 0"),
        (lambda t: t["optim"].update(lr=math.nan), "optim.lr: expected a finite number"),
        (lambda t: t["optim"].update(lr=10**400), "optim.lr: expected a finite number"),
        (lambda t: t.update(seed=2**63), "seed: must be from -2**63 to 2**63 - 1"),
        (lambda t: t["data"].update(vocab_size=10**400), "vocab_size: must be at most 1,000,000"),
        (lambda t: t["model"].update(hidden_size=4_000_000), "hidden_size: must be at most 65,536"),
        (lambda t: t["training"].update(ema=1.0), "training.ema: must be in [0, 1)"),
        (lambda t: t["model"].update(n_heads=0), "model.n_heads: must be at least 1"),
        (lambda t: t["data"].update(name="mr"), 'data.name: "mr" is not one of "selfmade"'),
        (lambda t: t["data"].update(name="files"), "data.train: must be set for data.name files"),
        (lambda t: t["data"].update(name="hub"), "data.hub: must be set"),
        (lambda t: t["eval"].update(round=3), "eval.round: 3 does not divide eval.draws 4"),
        (
            lambda t: t["eval"].update(calibrate=True, stop_z=0.0, estimator="independent"),
            "eval.calibrate: needs eval.estimator shared",
        ),
        (
            lambda t: (
                t["model"].update(architecture="gpt2"),
                t["eval"].update(calibrate=True, stop_z=0.0),
            ),
            "eval.calibrate: gpt2's likelihood is exact",
        ),
        (
            lambda t: (t["model"].update(architecture="gpt2"), t["eval"].update(table=True)),
            "eval.table: gpt2's likelihood is exact",
        ),
        (lambda t: t["eval"].update(calibrate=True), "eval.stop_z: must be 0 with eval.calibrate"),
        (lambda t: t["class_likelihood"].update(steps=1), "needs model.classes added or adaln"),
        (
            lambda t: (
                t["class_likelihood"].update(steps=1),
                t["eval"].update(estimator="independent"),
            ),
            "class_likelihood.steps: needs eval.estimator shared",
        ),
        (lambda t: t["model"].update(architecture="gpt2", classes="adaln"), "gpt2 has no adaLN"),
        (lambda t: t["pretrain"].update(waive_keys="x"), "expected a list of text, got text"),
        (lambda t: t["pretrain"].update(waive_keys=[1]), "expected a list of text, got a list"),
        (lambda t: t["model"].update(head_init="ones"), '"ones" is not one of "zero" | "uniform"'),
        (lambda t: t.update(time_conditioning=True), "time_conditioning: true is not one of"),
        (lambda t: t["training"].update(sampling_eps_max=1e-4), "need 0 < min < max <= 1"),
        (
            lambda t: t["lr_scheduler"].update(num_warmup_steps=40),
            "num_warmup_steps: 40 is not below training.max_steps 40",
        ),
        (
            lambda t: t["pretrain"].update(num_warmup_steps=60),
            "pretrain.num_warmup_steps: 60 is not below pretrain.steps 60",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_key(
    tree: dict[str, Any], change: Change, message: str
) -> None:
    change(tree)
    with pytest.raises(ConfigError) as caught:
        config.from_tree(tree)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_departure_from_the_recipe_that_is_not_named_is_none(tree: dict[str, Any]) -> None:
    tree["model"]["head_init"] = "zero"
    named = config.from_tree(tree)
    del tree["model"]["head_init"]
    assert config.from_tree(tree) == named


def test_an_integer_is_taken_where_a_float_is_wanted(tree: dict[str, Any]) -> None:
    tree["training"]["sampling_eps_max"] = 1
    assert type(config.from_tree(tree).training.sampling_eps_max) is float


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("noise", "type", "uniform"),
        ("noise", "eps", 0.1),
        ("training", "antithetic_sampling", False),
        ("training", "sampling_eps_min", 0.5),
        ("training", "sampling_eps_max", 0.5),
        ("model", "cond_dim", 16),
        ("model", "head_init", "uniform"),
    ],
)
@pytest.mark.parametrize("name", ["gpt2", "simple-diffusion"])
def test_a_key_that_nothing_reads_keeps_its_published_value(
    name: str, part: str, key: str, value: object
) -> None:
    made = tiny(name, "cpu")
    config.from_tree(made)
    made[part][key] = value
    if name == "gpt2" or key in ("eps", "sampling_eps_min", "sampling_eps_max"):
        with pytest.raises(ConfigError, match=rf"config {part}\.{key}: .* has no effect with"):
            config.from_tree(made)
    else:
        config.from_tree(made)


def changed(tree: dict[str, Any], values: dict[str, object]) -> dict[str, Any]:
    made = {key: dict(v) if isinstance(v, dict) else v for key, v in tree.items()}
    for key, value in values.items():
        part, _, name = key.partition(".")
        made[part][name] = value
    return made


HUB = {"data.name": "hub", "data.hub": "someone/feelings"}
FILES = {"data.name": "files", "data.train": "a.csv", "data.test": "b.csv"}
IMDB = {"data.name": "imdb"}
READ = [
    ("data.train", "c.csv", IMDB, FILES),
    ("data.dev", "c.csv", HUB, FILES),
    ("data.test", "c.csv", {}, FILES),
    ("data.hub", "someone/else", FILES, HUB),
    ("data.text", "body", IMDB, HUB),
    ("data.text", "body", IMDB, IMDB | {"pretrain.texts": "more"}),
    ("data.label", "stars", {"pretrain.texts": "more"}, FILES),
    ("data.phrases", False, IMDB, {"data.name": "sst2"}),
    ("pretrain.waive_keys", ["zz"], {}, {"pretrain.checkpoint": "start/pretrained.pt"}),
    ("eval.draws", 64, {"model.architecture": "gpt2"}, {}),
    ("eval.round", 2, {"model.architecture": "gpt2-both-ways"}, {"eval.draws": 4}),
    ("eval.stop_z", 9.0, {"model.architecture": "gpt2"}, {}),
    ("eval.estimator", "independent", {"model.architecture": "gpt2"}, {}),
]


@pytest.mark.parametrize(("key", "value", "unread", "read"), READ)
def test_a_key_is_changed_only_where_something_reads_it(
    tree: dict[str, Any],
    key: str,
    value: object,
    unread: dict[str, object],
    read: dict[str, object],
) -> None:
    if "model.architecture" in unread:
        tree = tiny("gpt2", "cpu")
        read = {"model.architecture": "mdlm"} | read
    config.from_tree(changed(tree, unread))
    with pytest.raises(ConfigError, match=rf"config {key}: .* has no effect with .*; leave it at"):
        config.from_tree(changed(tree, unread | {key: value}))
    config.from_tree(changed(tree, read | {key: value}))


def test_uniform_noise_that_is_judged_independently_reads_the_levels() -> None:
    made = tiny("simple-diffusion", "cpu")
    made["training"]["sampling_eps_min"] = 0.5
    made["eval"] |= {"estimator": "independent"}
    config.from_tree(made)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "[" * 100_000])
def test_a_file_that_holds_no_config_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError):
        config.load(tmp_path / "config.json")


def test_a_config_survives_the_file(tmp_path: Path, tree: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tree))
    assert config.load(tmp_path / "config.json") == (config.from_tree(tree), [])


def test_a_shortened_config_keeps_the_model_and_the_recipe(tree: dict[str, Any]) -> None:
    full = config.from_tree(tree)
    short = config.shortened(full, steps=5, batch=16, examples=8, draws=2)
    assert (short.model, short.optim, short.noise) == (full.model, full.optim, full.noise)
    assert (short.training.max_steps, short.pretrain.steps, short.eval.draws) == (5, 5, 2)


@pytest.mark.parametrize("profile", [None, *spec.load_job(ROOT, INCIDENT).profiles])
def test_the_incident_is_refused_for_exactly_what_was_wrong_with_its_config(
    profile: str | None,
) -> None:
    job = spec.load_job(ROOT, INCIDENT, profile=profile)
    findings = reference.check(job.config, job.reference, reference_tree(ROOT, job.reference))
    assert [(f.rule, f.key) for f in findings if f.refuses] == [
        ("missing", "training.sampling_eps_min"),
        ("missing", "training.sampling_eps_max"),
        ("differs", "lr_scheduler.num_warmup_steps"),
    ]


def test_its_missing_keys_are_filled_only_when_asked_and_that_is_said(tmp_path: Path) -> None:
    job = spec.load_job(ROOT, INCIDENT, profile="cpu")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(job.config))
    with pytest.raises(ConfigError, match=r"training\.sampling_eps_min: missing"):
        config.load(path)
    built, said = config.load(path, lenient=True)
    assert (built.training.sampling_eps_min, built.training.sampling_eps_max) == (1e-3, 1.0)
    assert [line.split()[0] for line in said] == [
        "training.sampling_eps_min",
        "training.sampling_eps_max",
    ]
    tree = dict(job.config)
    del tree["loader"]
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match="loader: missing"):
        config.load(path, lenient=True)
