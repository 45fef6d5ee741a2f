"""A job file becomes a JobSpec, or an error that names the line and the fix."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import spec, units
from orchestrator.confighash import config_hash
from orchestrator.errors import NotFound, SpecError, UsageError
from orchestrator.jobspec import Bound, Canary, JobSpec, Resources, Stage

FULL = Path(__file__).parent.parent / "data" / "full_job.yaml"
SMALL = """\
command: python train.py
config:
  model: {size: base, layers: 12, dropout: 0.1}
  train: {steps: 800, lr: 1e-3, amp: true, betas: [0.9, 0.99], resume: null, note: "a"}
profiles:
  cpu: {config: {model: {size: tiny}, train: {steps: 10}}, resources: {gpus: 0}}
resources: {gpus: 2, time: 24h}
"""

Load = Callable[..., JobSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes jobs/j.yaml and loads it."""

    def write_and_load(text: str, **options: Any) -> JobSpec:
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / "j.yaml").write_text(text, encoding="utf-8")
        return spec.load_job(tmp_path, "j", **options)

    return write_and_load


def test_full_job_is_read_to_the_last_key(load: Load) -> None:
    job = load(FULL.read_text(encoding="utf-8"))
    assert job.stages == (Stage("main", ("sh", "-c", "python -m jobs.textdiff.pipeline")),)
    assert job.config["training"] == {
        "ema": 0.9999, "sampling_eps_min": 0.001, "sampling_eps_max": 1.0
    }  # fmt: skip
    assert job.reference is not None
    assert [(f.path, f.at) for f in job.reference.files] == [
        ("jobs/references/bd3lm.yaml", None),
        ("jobs/references/warmup.yaml", "lr_scheduler"),
    ]
    assert job.reference.only == ("training", "lr_scheduler", "optim")
    assert job.reference.waive == {"training.ema": "short run"}
    assert job.resources == Resources(0, 1, 16 * 2**30, 20 * 2**30, 86400.0, 120.0)
    assert job.profiles == ("cpu",)
    assert job.env == {"TOKENIZERS_PARALLELISM": "false"}
    assert job.secrets == ("HF_TOKEN",)
    assert [(d.name, d.source, d.at) for d in job.data] == [
        ("sst2", "$ORCH_DATA/sst2", None),
        ("imdb", None, "/mnt/datasets/imdb"),
    ]
    assert job.requirements == "jobs/requirements.txt"
    assert (job.results_dir, job.results_exclude) == ("results", ("checkpoints/**",))
    assert (job.metrics_file, job.metrics_primary) == ("results/metrics.json", "accuracy")
    assert job.metrics_declared
    assert job.expect.metrics == {"accuracy": Bound(0.85, None)}
    assert job.expect.predictions == "not-degenerate"
    assert job.guards == (
        {"metric": "loss", "rule": "finite", "action": "stop", "grace": 120.0},
        {"log": "idle", "after": 1800.0, "action": "warn"},
    )  # fmt: skip
    assert job.canary == Canary(("sh", "-c", "python -m jobs.textdiff.pipeline --canary"), 300.0)


@pytest.mark.parametrize(
    ("grace", "own", "given"),
    [("", "", 60.0), ("30s", "", 60.0), ("2m", "", 120.0), ("2m", "5s", 5.0)],
)
def test_a_guard_gives_what_it_says_else_what_the_run_gives_and_no_less_than_a_minute(
    load: Load, grace: str, own: str, given: float
) -> None:
    lines = ["command: x", f"resources: {{grace: {grace or 'null'}}}"]
    rule = "metric: loss, rule: finite" + (f", grace: {own}" if own else "")
    job = load("\n".join([*lines, f"guards: [{{{rule}}}]"]))
    assert [guard["grace"] for guard in job.guards] == [given]


def test_smallest_job_has_every_default(load: Load) -> None:
    job = load("command: [python, -V]\n")
    assert job.stages == (Stage("main", ("python", "-V")),)
    assert job.config == {}
    assert job.metrics_file == "results/metrics.json"
    assert not job.metrics_declared
    assert job.resources == Resources()
    assert load("command: x\nresults: {dir: out}\n").metrics_file == "out/metrics.json"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 1, "empty"),
        ("- a", 1, "must be a map"),
        ("config: {}", 1, "needs `command:` or `stages:`"),
        ("command: x\ncomand: z", 2, "unknown key `comand`; did you mean `command`?"),
        ("command: x\nresources:\n  gpu: 1", 3, "in `resources`; did you mean `gpus`?"),
        ("command: x\nresources: {gpus: 1-}", 2, "not a number of GPUs"),
        ("command: x\nresources: {gpus: 2-1}", 2, "fewer than the least"),
        ("command: x\nresources: {gpus: true}", 2, "not a number of GPUs"),
        ("command: x\nresources: {time: 90}", 2, "not a duration; write e.g. 90s"),
        ("command: x\nresources: {time: 0s}", 2, "more than zero"),
        ("command: x\nresources: {grace: 2}", 2, "not a duration"),
        ("command: x\nresources: {grace: 61m}", 2, "more than an hour"),
        ("command: x\nresources: {disk: 16G}", 2, "not a size; write e.g. 16GiB"),
        ("command: x\nstages: {a: {command: z}}", 2, "cannot both be given"),
        ("command: ''", 1, "is empty"),
        ("command: []", 1, "empty list"),
        ("command: [a, 1]", 1, "texts only"),
        ("command: {a: b}", 1, "text or a list"),
        ("stages: {a: {command: x, needs: [b]}}", 1, "needs `b`, which is no stage"),
        ("stages: {a: {command: x, needs: [b]}, b: {command: x, needs: [a]}}", 1, "circle: a, b"),
        ("stages: {a: {command: x, needs: [a]}}", 1, "in a circle: a"),
        ("stages: {A: {command: x}}", 1, "`A` at position 1"),
        ("command: x\nconfig: {a.b: 1}", 2, "no dot"),
        ("command: x\nconfig:\n  a:\n    '': 1", 4, "no dot"),
        ("command: x\nconfig: [1]", 2, "must be a map"),
        ("command: x\nconfig: {a: 1}\nvolatile: [b]", 3, "no key `b`"),
        ("command: x\nenv:\n  A: 1", 3, 'quote it: "1"'),
        ("command: x\nenv:\n  A: false", 3, 'quote it: "false"'),
        ("command: x\nenv: {PATH: x}", 2, "cannot be set by a job"),
        ("command: x\nenv: {LD_PRELOAD: x}", 2, "cannot be set by a job"),
        ("command: x\nenv: {ORCH_RUN_ID: x}", 2, "cannot be set by a job"),
        ("command: x\nenv: {CUDA_VISIBLE_DEVICES: '0'}", 2, "cannot be set by a job"),
        ("command: x\nenv: {'A=B': x}", 2, "`=` at position 2"),
        ('command: x\nenv: {A: "a\\0b"}', 2, "NUL"),
        ("command: x\nsecrets: [hf_token]", 2, "position 1"),
        ("command: x\nsecrets: [PATH]", 2, "cannot be set by a job"),
        ("command: x\nenv: {A: b}\nsecrets: [A]", 3, "in `env` and in `secrets`"),
        ("command: x\ndata: {d: {}}", 2, "needs `from:` or `at:`"),
        ("command: x\ndata: {d: {from: a, at: /b}}", 2, "not both"),
        ("command: x\ndata: {d: {at: b}}", 2, "a path on the host"),
        ("command: x\ndata: {../d: {at: /b}}", 2, "position 1"),
        ("command: x\ndata: {d: {from: a, when: {k: 1}}}", 2, "no key `k`"),
        ("command: x\nconfig: {k: 1}\ndata: {d: {from: a, when: {k: x}}}", 3, "expects an integer"),
        ("command: x\nsetup: {requirements: ../r.txt}", 2, "inside the project"),
        ("command: x\nsetup: {requirements: /r.txt}", 2, "inside the project"),
        ("command: x\nresults: {dir: ..}", 2, "inside the project"),
        ("command: x\nresults: {dir: ~/x}", 2, "inside the project"),
        ("command: x\nresults: {exclude: [results/a/**]}", 2, "`results/a/**` would leave out"),
        ("command: x\nresults: {dir: out, exclude: [out/*.pt]}", 2, "relative to `out`"),
        ("command: x\nmetrics: {file: m.json}", 2, "inside `results.dir`"),
        ("command: x\nmetrics: {file: results2/m.json}", 2, "inside `results.dir`"),
        ("command: x\nexpect: {accuracy: 0.9}", 2, "must be a map"),
        ("command: x\nexpect: {accuracy: {}}", 2, "needs `min:` or `max:`"),
        ("command: x\nexpect: {accuracy: {min: high}}", 2, "must be a number"),
        ("command: x\nexpect: {a: {min: 2, max: 1}}", 2, "above max"),
        ("command: x\nexpect: {tolerance: 0.1}", 2, "needs `against:`"),
        ("command: x\nexpect: {against: best, tolerance: 1}", 2, "is a share"),
        ("command: x\nexpect: {predictions: not_degenerate}", 2, "did you mean `not-degenerate`?"),
        ("command: x\nguards: [{metric: loss}]", 2, "must be {metric: NAME, rule: finite}"),
        ("command: x\nguards: [{loss: idle}]", 2, "unknown key `loss`"),
        ("command: x\nguards: [{metric: loss, log: idle, after: 1m}]", 2, "is no guard"),
        ("command: x\nguards: [{metric: loss, max: 3, rule: finite}]", 2, "must be {metric"),
        ("command: x\nguards: [{metric: l, min: 5, max: 3}]", 2, "min 5 is above max 3"),
        ("command: x\nguards: [{log: idle}]", 2, "needs `after:`"),
        ("command: x\nguards: [{disk: low}]", 2, "needs `free:`"),
        ("command: x\nguards: [{log: idle, after: 1m, grace: 1m}]", 2, "only `action: stop`"),
        ("command: x\nguards: [{metric: l, max: 3, action: die}]", 2, "warn, stop, kill"),
        ("command: x\nguards: [{metric: l, no_improvement: 0}]", 2, "more than 0 steps"),
        ("command: x\nnotify: {events: [end]}", 2, "needs `webhook:` or `command:`"),
        ("command: x\nnotify: {webhook: 'file:///etc/passwd'}", 2, "http(s)://"),
        ("command: x\nguards: [{metric: loss, rule: finit}]", 2, "did you mean `finite`?"),
        ("command: x\ncanary: {command: z, scale: steps / 10}", 2, "no key `steps`"),
        ("command: x\ncanary: {command: z, expect: {against: best}}", 2, "no earlier run"),
        ("command: x\ncanary: {time: 5m}", 2, "needs `command:`"),
        ("command: x\ncheckpoint: {file: a}", 2, "needs `model:` and one of"),
        ("command: x\ncheckpoint: {file: a, at: /b, model: m}", 2, "needs `model:` and one of"),
        ("command: x\ncheckpoint: {at: b, model: m}", 2, "a path on the host"),
        ("command: x\ncheckpoint: {key: b, model: m}", 2, "no key `b`"),
        ("command: x\ncheckpoint: {file: a, model: m, min: 95}", 2, "it is a share"),
        ("command: x\ncheckpoint: {file: a, model: {cmd: x}}", 2, "unknown key `cmd`"),
        ("command: x\nreference: {only: [a]}", 2, "needs `config:`"),
        ("command: x\nreference: {config: ../r.yaml}", 2, "inside the project"),
        ("command: x\nreference: {config: {git: 'repo:path'}}", 2, "must be repo@commit:path"),
        ("command: x\nreference: {config: {git: 'r@-x:p.yaml'}}", 2, "must be repo@commit:path"),
        ("command: x\nreference: {config: {git: 'r@a:../p.yaml'}}", 2, "must be repo@commit:path"),
        ("command: x\nreference: {config: {git: 'r@a:p', file: p}}", 2, "must be a file name"),
        ("command: x\nreference: {config: [{at: a}]}", 2, "{file: ..., at: dotted.key}"),
        ("command: x\nreference: {config: r.yaml, waive: {a: ''}}", 2, "is empty"),
        ("command: x\nrules: ['a < 1']", 2, "character 1: the config has no key `a`"),
        ("command: x\nconfig: {a: 1}\nrules: ['a < 1 and']", 3, "character 10: it is"),
        ("command: x\nrules: [{why: because}]", 2, "must be an expression"),
        ("command: x\nprofiles: {cpu: {confg: {}}}", 2, "did you mean `config`?"),
        ("command: x\nprofiles: {cpu: {secrets: [A]}}", 2, "unknown key `secrets`"),
        ("command: x\nconfig: {lr: 010}", 2, "write 10"),
        ("command: x\nconfig: {lr: 1, lr: 2}", 2, "given twice"),
    ],
)  # fmt: skip
def test_fault_in_a_job_file_is_named_with_its_line(
    load: Load, text: str, line: int, told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(text)
    assert told in caught.value.message
    assert caught.value.line == line
    assert caught.value.message.startswith(f"jobs/j.yaml:{line}:")


def test_stages_run_after_what_they_need_and_else_in_the_files_order(load: Load) -> None:
    job = load(
        "stages:\n  report: {command: r, needs: [eval, train]}\n  prep: {command: p}\n"
        "  eval: {command: e, needs: [train]}\n  train: {command: t, needs: [prep]}\n"
    )
    assert [stage.name for stage in job.stages] == ["prep", "train", "eval", "report"]
    assert load("stages: {b: {command: x}, a: {command: z}}").stages[0].name == "b"


# --- profiles and overrides -----------------------------------------------------------------------


def test_profile_is_merged_into_config_and_sections(load: Load) -> None:
    job = load(SMALL, profile="cpu")
    assert job.config["model"] == {"size": "tiny", "layers": 12, "dropout": 0.1}
    assert job.config["train"]["steps"] == 10
    assert job.resources == Resources(0, 0, time=86400.0)
    assert job.profile == "cpu"
    assert load(SMALL).config["model"]["size"] == "base"


@pytest.mark.parametrize(
    ("profile", "line", "told"),
    [
        ("config: {modle: {size: x}}", 2, "sets `modle`, which the config does not have; did you"),
        ("config: {model: {sise: x}}", 2, "sets `model.sise`"),
        ("config: {model: {layers: 1.5}}", 2, "`model.layers` expects an integer"),
        ("config: {model: {layers: x}}", 2, "expects an integer"),
        ("config: {model: {layers: true}}", 2, "expects an integer"),
        ("config: {model: small}", 2, "expects a map"),
        ("config: {train: {amp: 1}}", 2, "expects true or false"),
        ("config: {train: {steps: null}}", 2, "expects an integer"),
        ("resources: {gpus: x}", 2, "not a number of GPUs"),
        ("env: {A: 1}", 2, "quote it"),
    ],
)
def test_profile_that_does_not_fit_is_refused_at_its_own_line(
    load: Load, profile: str, line: int, told: str
) -> None:
    text = f"profiles:\n  p: {{{profile}}}\n" + SMALL.replace(SMALL[SMALL.index("prof") :], "")
    with pytest.raises(SpecError) as caught:
        load(text, profile="p")
    assert told in caught.value.message
    assert caught.value.line == line
    load(text)  # what a profile says is judged when it is chosen


def test_profile_replaces_command_by_stages_and_a_data_source_by_another(load: Load) -> None:
    text = (
        "command: x\ndata: {d: {from: a}}\nenv: {A: '1', B: '2'}\nexpect: {acc: {min: 1}}\n"
        "profiles:\n  p: {stages: {s: {command: z}}, data: {d: {at: /b}}, env: {A: null}, "
        "expect: null}\n"
    )
    job = load(text, profile="p")
    assert job.stages == (Stage("s", ("sh", "-c", "z")),)
    assert (job.data[0].source, job.data[0].at) == (None, "/b")
    assert job.env == {"B": "2"}
    assert job.expect.metrics == {}
    assert not job.metrics_declared


def test_unknown_profile_is_a_usage_error_with_the_known_ones(load: Load) -> None:
    with pytest.raises(UsageError, match="no profile `cup`; did you mean `cpu`") as caught:
        load(SMALL, profile="cup")
    assert caught.value.hint == "profiles: cpu"


@pytest.mark.parametrize(
    ("override", "dotted", "value"),
    [
        ("train.lr=1e-4", "lr", 0.0001),
        ("train.lr=1", "lr", 1.0),
        ("train.steps=5", "steps", 5),
        ("train.amp=false", "amp", False),
        ("train.resume=ckpt", "resume", "ckpt"),
        ("train.resume={a: 1}", "resume", {"a": 1}),
        ("train.betas=[1, 0.5]", "betas", [1.0, 0.5]),
        ("train.note=x=y", "note", "x=y"),
        ("train.note='10'", "note", "10"),
    ],
)
def test_override_takes_the_type_of_the_key(
    load: Load, override: str, dotted: str, value: Any
) -> None:
    job = load(SMALL, overrides=[override])
    got = job.config["train"][dotted]
    assert got == value
    assert json.dumps(got) == json.dumps(value)  # 1 and 1.0 differ here
    assert job.overrides == {f"train.{dotted}": value}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.lrr=1", "no key `train.lrr`; did you mean `train.lr`?"),
        ("config.train.lr=1", "no key `config.train.lr`"),
        ("train.steps=1.5", "`train.steps` expects an integer (it is 800), got 1.5"),
        ("train.steps=1e3", "expects an integer"),
        ("train.steps=many", "expects an integer (it is 800), got 'many', which is text"),
        ("train.steps=true", "got true, which is true or false"),
        ("train.lr=fast", "expects a number"),
        ("train.lr=010", "write 10"),
        ("train.lr=true", "expects a number"),
        ("train.amp=yes", "write true"),
        ("train.note=5", "expects text"),
        ("train.betas=0.9", "expects a list"),
        ("train.betas=[a]", "`train.betas.0` expects a number"),
        ("train=5", "expects a map"),
        ("train={lrr: 1}", "no key `train.lrr`"),
        ("train.lr.x=1", "no key `train.lr.x`"),
        ("train..lr=1", "no key `train..lr`"),
        ("train.lr", "write --set key.subkey=value"),
        ("=1", "write --set key.subkey=value"),
        ("train.lr=", "empty"),
        ("train.note=!!python/name:os", "quote it"),
    ],
)
def test_override_that_does_not_fit_is_a_usage_error(load: Load, override: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(SMALL, overrides=[override])
    assert told in caught.value.message
    assert caught.value.exit_code == 2


def test_override_comes_after_the_profile_and_the_last_one_holds(load: Load) -> None:
    job = load(SMALL, profile="cpu", overrides=["train.steps=3", "train.steps=4"])
    assert job.config["train"]["steps"] == 4
    assert load(SMALL, overrides={"train": "{steps: 9}"}).config["train"]["steps"] == 9


def test_null_can_be_set_again_where_a_profile_put_something_in_its_place(load: Load) -> None:
    text = SMALL.replace("train: {steps: 10}", 'train: {steps: 10, resume: "a.pt"}')
    job = load(text, profile="cpu", overrides=["train.resume=null"])
    assert job.config["train"]["resume"] is None
    with pytest.raises(UsageError, match=r"expects an integer \(it is 10\), got null$"):
        load(text, profile="cpu", overrides=["train.steps=null"])
    with pytest.raises(UsageError) as caught:
        load(text, profile="cpu", overrides=["model.size=null"])
    assert caught.value.hint == "quote it inside: '\"null\"'"


def test_f70_same_value_by_file_profile_or_override_is_the_same_hash(load: Load) -> None:
    in_file = load(SMALL.replace("dropout: 0.1", "dropout: 1.0"))
    by_set = load(SMALL, overrides=["model.dropout=1"])
    by_profile = load(
        SMALL.replace("cpu: {config: {model: {size: tiny}", "p: {config: {model: {dropout: 1}")
        .replace(", train: {steps: 10}", ""),
        profile="p",
    )  # fmt: skip
    assert len({config_hash(job.config) for job in (in_file, by_set, by_profile)}) == 1
    assert config_hash(in_file.config) != config_hash(load(SMALL).config)


def test_data_for_keeps_what_the_config_asks_for(load: Load) -> None:
    text = (
        "command: x\nconfig: {model: {kind: mdlm}, scale: 1.0}\n"
        "data:\n  a: {from: a}\n  b: {from: b, when: {model.kind: gpt2}}\n"
        "  c: {from: c, when: {model.kind: mdlm, scale: 1}}\n"
    )
    assert [source.name for source in spec.data_for(load(text))] == ["a", "c"]
    changed = load(text, overrides=["model.kind=gpt2"])
    assert [source.name for source in spec.data_for(changed)] == ["a", "b"]


# --- finding jobs ---------------------------------------------------------------------------------


def test_jobs_are_listed_sorted_without_strangers(tmp_path: Path) -> None:
    assert spec.job_names(tmp_path) == []
    folder = tmp_path / "jobs"
    (folder / "references").mkdir(parents=True)
    for name in ("b.yaml", "a.yaml", "No.yaml", "x.py", "-x.yaml"):
        (folder / name).write_text("command: x\n")
    assert spec.job_names(tmp_path) == ["a", "b"]


def test_unknown_job_is_not_found_with_the_nearest_and_the_list(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "hello.yaml").write_text("command: x\n")
    with pytest.raises(NotFound, match="did you mean `hello`") as caught:
        spec.load_job(tmp_path, "helo")
    assert caught.value.exit_code == 3
    assert caught.value.hint == "jobs here: hello"


def test_f63_job_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("command: x\n")
    for name in ("../x", "/x", "a/../x", "x\0"):
        with pytest.raises(UsageError, match="position"):
            spec.load_job(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("24h", 86400), ("2d", 172800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("1B", 1), ("500MB", 500_000_000), ("16GiB", 2**34), ("1.5KiB", 1536), ("2 TB", 2 * 10**12)],
)
def test_sizes(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize(
    ("value", "pair"), [(0, (0, 0)), (2, (2, 2)), ("0-1", (0, 1)), ("2", (2, 2)), ("1-8", (1, 8))]
)
def test_gpus(value: Any, pair: tuple[int, int]) -> None:
    assert units.gpus(value) == pair


def test_a_profile_may_waive_what_its_size_makes_it_miss(load: Load) -> None:
    text = (
        "command: run\n"
        "config: {warmup: 2500}\n"
        "reference: {config: ref.yaml}\n"
        "profiles:\n"
        "  small:\n"
        "    config: {warmup: 10}\n"
        "    reference: {waive: {warmup: short run}}\n"
    )
    assert load(text).reference.waive == {}
    small = load(text, profile="small").reference
    assert small.waive == {"warmup": "short run"}
    assert [file.path for file in small.files] == ["ref.yaml"]


@pytest.mark.parametrize("typed", ["1.10", "0x1F", "1e-4", "True", "null", "~", "007.0", "[1, 2]"])
def test_the_hint_for_a_text_keeps_what_was_typed(load: Load, typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(SMALL, overrides=[f"model.size={typed}"])
    (quoted,) = shlex.split((caught.value.hint or caught.value.message).rpartition(": ")[2])
    if caught.value.hint is None:
        quoted = f'"{quoted}"'  # a scalar that surprises is shown as YAML has it
    assert load(SMALL, overrides=[f"model.size={quoted}"]).config["model"]["size"] == typed


def test_a_text_within_a_map_is_quoted_by_its_user(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        load(SMALL, overrides=["model={size: 1.10}"])
    assert caught.value.hint == "quote it if it is a text"


def test_files_among_the_jobs_that_are_none_are_told_with_why(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "folder.yaml").mkdir(parents=True)
    for name in ("good.yaml", "q.yml", "UPPER.yaml", "a b.yaml", ".hidden.yaml", "train.py"):
        (tmp_path / "jobs" / name).write_text("command: x")
    (tmp_path / "jobs" / "link.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "jobs" / "pipe.yaml")
    told = dict(spec.no_jobs(tmp_path))
    none = ["UPPER.yaml", "a b.yaml", "folder.yaml", "link.yaml", "pipe.yaml", "q.yml"]
    assert list(told) == [f"jobs/{name}" for name in none]
    for name in ("folder.yaml", "link.yaml", "pipe.yaml", "q.yml"):
        with pytest.raises(NotFound, match=f"jobs/{name} is no job: {told[f'jobs/{name}']}"):
            spec.load_job(tmp_path, name.partition(".")[0])
    assert "`U` at position 1" in told["jobs/UPPER.yaml"]
    assert ".yaml" in told["jobs/q.yml"]
    assert spec.job_names(tmp_path) == ["good"]
    assert spec.no_jobs(tmp_path / "nowhere") == []
