"""Reference files: joined, resolved by Hydra and OmegaConf, read from a commit."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.jobspec import Reference, ReferenceFile
from orchestrator.references import reference_tree
from tests.helpers.project import commit_all, run_git


def tree(project: Path, *files: ReferenceFile) -> dict[str, Any]:
    return reference_tree(project, Reference(files))


def test_files_are_joined_and_placed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {ema: 0.9999}\n")
    (tmp_path / "b.yml").write_text("num_warmup_steps: 2500\n")
    (tmp_path / "c.json").write_text('{"training": {"eps": 1e-3, "ema": 0.9999}}')
    got = tree(
        tmp_path,
        ReferenceFile("a.yaml"),
        ReferenceFile("b.yml", at="optim.sched"),
        ReferenceFile("c.json"),
    )
    assert got == {
        "training": {"ema": 0.9999, "eps": 0.001},
        "optim": {"sched": {"num_warmup_steps": 2500}},
    }
    assert reference_tree(tmp_path, None) == {}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("r.yaml", "a: '${b}'\nb: '${a}'\n", "its interpolations go in a circle"),
        ("r.yaml", "a: '${nope}'\n", "`a` does not resolve: Interpolation key 'nope' not found"),
        ("r.yaml", "a: '${div_up:1,2}'\n", "Unsupported interpolation type div_up"),
        ("r.yaml", "a: '${'\n", "does not compose"),
        ("r.yaml", "a: [${b}\n", "does not compose"),
        ("r.yaml", "defaults:\n  - model: small\n", "does not compose: "),
        ("r.yaml", "- 1\n", "must hold a map"),
        ("r.yaml", "a: no\n", "write false"),
        ("r.json", '{"a": 1, "a": 2}', "given twice"),
        ("r.json", '{"a": NaN}', "NaN"),
        ("r.json", '{"a": "${b}"}', "Interpolation key 'b' not found"),
        ("r.yaml", b"a: \xff", "not UTF-8"),
        ("r.py", "a = 1", "must be a .yaml"),
    ],
)  # fmt: skip
def test_reference_that_cannot_be_used_is_a_spec_error(
    tmp_path: Path, name: str, text: str | bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        tree(tmp_path, ReferenceFile(name))
    assert told in caught.value.message


def test_missing_file_and_disagreeing_files_are_spec_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        tree(tmp_path, ReferenceFile("none.yaml"))
    (tmp_path / "a.yaml").write_text("x: {y: 1}\n")
    (tmp_path / "b.yaml").write_text("x: {y: 2}\n")
    with pytest.raises(SpecError, match="`x.y` is 2 here and 1"):
        tree(tmp_path, ReferenceFile("a.yaml"), ReferenceFile("b.yaml"))


# A tree as the reference repositories have it, cut down.
HYDRA = {
    "configs/config.yaml": """
defaults:
  - _self_
  - /model: small
  - /lr_scheduler: constant_warmup

seed: 1
wandb: {name: null, dir: "${cwd:}"}
loader:
  global_batch_size: 512
  batch_size: ${div_up:${loader.global_batch_size}, 8}
optim: {lr: 3.0e-4}
training:
  ema: 0.9999
  twice: ${optim.lr}
  path: ???
""",
    "configs/model/small.yaml": "hidden_size: 768\nlength: ${oc.decode:'1024'}\n",
    "configs/model/tiny.yaml": "hidden_size: 64\nlength: 64\n",
    "configs/lr_scheduler/constant_warmup.yaml": (
        "_target_: transformers.get_constant_schedule_with_warmup\nnum_warmup_steps: 2500\n"
    ),
}
ONLY = ("model", "lr_scheduler", "training", "optim")


def hydra_tree(project: Path) -> Path:
    for name, text in HYDRA.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    return project


def test_a_hydra_tree_is_composed_and_what_is_not_compared_need_not_resolve(
    tmp_path: Path,
) -> None:
    hydra_tree(tmp_path)
    file = ReferenceFile("configs/config.yaml")
    got = reference_tree(tmp_path, Reference((file,), only=ONLY))
    assert got["lr_scheduler"]["num_warmup_steps"] == 2500
    assert got["model"] == {"hidden_size": 768, "length": 1024}
    assert got["training"] == {"ema": 0.9999, "twice": 3e-4}  # `???` says nothing
    with pytest.raises(SpecError, match="`wandb.dir` does not resolve"):
        reference_tree(tmp_path, Reference((file,)))
    ignored = Reference((file,), ignore=("wandb", "loader.batch_size"))
    assert reference_tree(tmp_path, ignored)["seed"] == 1


def test_hydra_overrides_choose_groups_and_values(tmp_path: Path) -> None:
    hydra_tree(tmp_path)
    file = ReferenceFile("configs/config.yaml", overrides=("model=tiny", "training.ema=0.5"))
    got = reference_tree(tmp_path, Reference((file,), only=ONLY))
    assert (got["model"]["hidden_size"], got["training"]["ema"]) == (64, 0.5)


def test_a_file_of_a_commit_is_read_whatever_the_clone_shows_now(tmp_path: Path) -> None:
    clone = hydra_tree(tmp_path / "mdlm")
    run_git(clone, "init", "-q", "-b", "main")
    sha = commit_all(clone, "as published")
    warmup = clone / "configs/lr_scheduler/constant_warmup.yaml"
    warmup.write_text("num_warmup_steps: 1\n")
    for commit in (sha, "main", sha[:10]):
        file = ReferenceFile("configs/config.yaml", repo="mdlm", commit=commit)
        got = reference_tree(tmp_path, Reference((file,), only=ONLY))
        assert got["lr_scheduler"]["num_warmup_steps"] == 2500
    plain = ReferenceFile(
        "configs/lr_scheduler/constant_warmup.yaml", "lr_scheduler", str(clone), sha
    )
    got = reference_tree(tmp_path, Reference((plain,)))
    assert got["lr_scheduler"]["num_warmup_steps"] == 2500


@pytest.mark.parametrize(
    ("repo", "commit", "path", "told"),
    [
        ("mdlm", "nope", "configs/config.yaml", "no commit nope"),
        ("mdlm", "main", "configs/none.yaml", "has no such file"),
        ("nowhere", "main", "configs/config.yaml", "nowhere"),
    ],
)
def test_a_commit_or_file_that_is_not_there_is_a_spec_error(
    tmp_path: Path, repo: str, commit: str, path: str, told: str
) -> None:
    clone = hydra_tree(tmp_path / "mdlm")
    run_git(clone, "init", "-q", "-b", "main")
    commit_all(clone, "as published")
    with pytest.raises(SpecError, match=told):
        reference_tree(tmp_path, Reference((ReferenceFile(path, repo=repo, commit=commit),)))


def test_without_the_extra_a_reference_to_resolve_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name in ("hydra", "omegaconf"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "r.yaml").write_text("a: ${b}\nb: 1\n")
    with pytest.raises(SpecError) as caught:
        reference_tree(tmp_path, Reference((ReferenceFile("r.yaml"),)))
    assert caught.value.hint is not None
    assert "orch[hydra]" in caught.value.hint
