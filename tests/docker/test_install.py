"""What a kit holds is installed only if it is exactly what the kit lists."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[2] / "docker"


def _kit(folder: Path) -> Path:
    """A kit whose one wheel is made up; pip would refuse it, so installing never succeeds."""
    kit = folder / "kit"
    (kit / "wheels").mkdir(parents=True)
    shutil.copy(DOCKER / "install.sh", kit)
    (kit / "wheels" / "privity-0-py3-none-any.whl").write_bytes(b"not a wheel")
    files = sorted(path for path in kit.rglob("*") if path.is_file())
    lines = (f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(kit)}" for f in files)
    (kit / "SHA256SUMS").write_text("\n".join(sorted(lines, key=lambda line: line[66:])) + "\n")
    return kit


def _install(kit: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(kit / "install.sh"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable},
        timeout=300,
    )


def _alter(kit: Path) -> None:
    (kit / "wheels" / "privity-0-py3-none-any.whl").write_bytes(b"another wheel")


def _add(kit: Path) -> None:
    (kit / "wheels" / "numpy-99-py3-none-any.whl").write_bytes(b"")


def _drop(kit: Path) -> None:
    (kit / "wheels" / "privity-0-py3-none-any.whl").unlink()


@pytest.mark.parametrize("change", [_alter, _add, _drop])
def test_a_kit_with_a_changed_added_or_missing_file_is_not_installed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    kit = _kit(tmp_path)
    change(kit)
    ended = _install(kit, tmp_path / "opt", "audit")
    assert ended.returncode == 4
    assert "not what its SHA256SUMS lists" in ended.stderr
    assert not (tmp_path / "opt").exists()


def test_a_kit_as_listed_is_handed_to_pip_without_an_index(tmp_path: Path) -> None:
    ended = _install(_kit(tmp_path), tmp_path / "opt", "audit")
    assert (tmp_path / "opt" / "bin" / "python").exists()
    assert ended.returncode not in {0, 2, 4}


def _extras(text: str) -> set[str]:
    return {name for found in re.findall(r'extras="([^"]*)"', text) for name in found.split(",")}


def test_the_kit_holds_what_every_role_installs_and_a_role_what_its_commands_need() -> None:
    declared = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text())["project"]
    known = set(declared["optional-dependencies"])
    install = (DOCKER / "install.sh").read_text()
    kit = re.search(r'"\$root\[([^]]*)\]"', (DOCKER / "kit.sh").read_text())
    assert kit is not None
    assert _extras(install) <= set(kit[1].split(",")) <= known
    roles = {
        role: set(extras.split(","))
        for role, extras in re.findall(r'^    (\w+)\) extras="([^"]*)" ;;$', install, re.M)
    }
    assert roles["client"] >= {"client", "prepare", "evaluate", "export", "serve"}
    assert roles["audit"] & {"model", "client", "server", "serve"} == set()
    assert roles["audit"] >= {"audit-page"}
    assert roles["all"] == set().union(*roles.values()) == set(kit[1].split(","))


def test_an_unknown_role_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    kit = _kit(tmp_path)
    assert _install(kit, tmp_path / "opt", "boss").returncode == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert _install(kit, tmp_path / "full", "audit").returncode == 2
    assert _install(kit).returncode == 2


def test_the_list_of_packages_names_each_with_its_version_and_wheel(tmp_path: Path) -> None:
    site, wheels = tmp_path / "site", tmp_path / "wheels"
    wheels.mkdir()
    for name, version in (("Left_Pad", "1.2"), ("zeta", "3")):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (wheels / "left_pad-1.2-py3-none-any.whl").write_bytes(b"w")
    subprocess.run(
        [sys.executable, DOCKER / "sbom.py", site, tmp_path / "out.json", wheels],
        check=True,
        timeout=120,
    )
    made = json.loads((tmp_path / "out.json").read_text())
    assert [(c["name"], c["version"]) for c in made["components"]] == [
        ("left-pad", "1.2"),
        ("zeta", "3"),
    ]
    assert made["components"][0]["purl"] == "pkg:pypi/left-pad@1.2"
    assert made["components"][0]["hashes"][0]["content"] == hashlib.sha256(b"w").hexdigest()
    assert "hashes" not in made["components"][1]
