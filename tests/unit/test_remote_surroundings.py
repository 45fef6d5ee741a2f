"""What a python tells of its packages, whatever lies among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from remote import surroundings


def packages(folder: Path) -> dict[str, Any]:
    argv = [sys.executable, "-c", surroundings.PROBE]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, check=True, timeout=60)
    return dict(json.loads(done.stdout)["packages"])


def test_a_package_whose_folder_names_no_version_hinders_no_other(tmp_path: Path) -> None:
    for name in ("aa_one-1.5.dist-info", "aa_two-2.0-py3.11.egg-info", "aa_deb.egg-info",
                 "aa_bare.egg-info", ".egg-info", "aa_bare2.dist-info", "egg-info"):  # fmt: skip
        (tmp_path / name).mkdir()
    deb = "Metadata-Version: 2.1\nName: aa-deb\nVersion: 38.0.4\n\nVersion: 9\n"
    (tmp_path / "aa_deb.egg-info" / "PKG-INFO").write_text(deb)
    (tmp_path / "aa_file.egg-info").write_text("Name: aa-file\nVersion: 7\n")
    told = packages(tmp_path)
    mine = {name: version for name, version in told.items() if name.startswith("aa-")}
    assert mine == {"aa-one": "1.5", "aa-two": "2.0", "aa-deb": "38.0.4", "aa-file": "7"}
    assert "pytest" in told
