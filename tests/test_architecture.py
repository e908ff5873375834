"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("configs", "privacy", "model", "audit", "client", "server", "demo")
FILES = sorted(
    [*(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")), ROOT / "privity.py"]
)
LEAVES = {"configs", "privacy", "model", "audit"}
# library -> the files that may import it
DOORS = {
    "accelerate": r"privacy/crew\.py",
    "opacus": r"privacy/dpsgd\.py",
    "presidio_analyzer": r"privacy/(scrub\w*|recognizers)\.py",
    "presidio_anonymizer": r"privacy/(scrub\w*|recognizers)\.py",
    "spacy": r"privacy/(scrub\w*|recognizers)\.py",
    "flwr": r"client/(node|runner|gate|identity)\.py|server/(node|flower)\.py|privacy/flower\.py",
    "transformers": r"model/\w+\.py",
    "peft": r"model/\w+\.py",
    "dp_accounting": r"privacy/plan\.py",
    "fastapi": r"client/(serving|review_app|gateway/(pages|replies|web))\.py|audit/page\.py",
    "jinja2": r"audit/page\.py|client/gateway/pages\.py|model/template\.py",
    "datasketch": r"client/prepare/likeness\.py",
    "optuna": r"client/search/study\.py",
    "trl": r"model/reinforce\.py",
    "openpyxl": r"client/prepare/tables\.py",
    "pyarrow": r"client/prepare/tables\.py",
    "sqlalchemy": r"client/prepare/tables\.py",
}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def test_the_import_contract_holds() -> None:
    from importlinter import cli

    # In a process of its own: the linter reads the working directory's configuration.
    done = subprocess.run(
        [sys.executable, "-c", f"from {cli.__name__} import lint_imports; "
         "raise SystemExit(lint_imports(no_cache=True))"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_a_leaf_imports_no_other_package_of_ours(leaf: str) -> None:
    for path in (ROOT / leaf).rglob("*.py"):
        for module in _imports(path):
            top = module.partition(".")[0]
            assert top not in {*PACKAGES, "privity"} - {leaf}, f"{_name(path)} imports {module}"


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_its_doors_and_no_others(library: str) -> None:
    users = [_name(path) for path in FILES
             if any(m.partition(".")[0] == library for m in _imports(path))]  # fmt: skip
    assert [user for user in users if not re.fullmatch(DOORS[library], user)] == []
    if library != "presidio_anonymizer":
        assert users, "the door is gone; drop it from the table"


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lengths.items() if count > 400} == {}


def test_every_package_file_is_one_docstring_or_more_and_init_is_one_line() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), _name(path)
        if path.name == "__init__.py":
            assert len(tree.body) == 1, _name(path)


def test_no_other_distribution_owns_a_name_of_ours() -> None:
    owners = importlib.metadata.packages_distributions()
    for name in (*PACKAGES, "privity"):
        assert set(owners.get(name, [])) <= {"privity"}, name


_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
_CALLS = {
    "torch.load",
    "yaml.load",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "np.load",
    "numpy.load",
}
_FLAGS = {"trust_remote_code": True, "shell": True, "allow_pickle": True, "weights_only": False}


def _foreign_code(text: str) -> list[str]:
    """Everything in `text` that could run code which is not ours."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = getattr(node, "module", None)
            found += {*names, module} & _MODULES
            found += {f"{module}.{name}" for name in names} & _CALLS
        if isinstance(node, ast.Call):
            found += {ast.unparse(node.func)} & _CALLS
            for flag in node.keywords:
                value = flag.value
                if flag.arg not in _FLAGS:
                    continue
                # Only the one safe constant is: 1 is no True, and means it all the same.
                if not (isinstance(value, ast.Constant) and value.value is not _FLAGS[flag.arg]
                        and isinstance(value.value, bool)):  # fmt: skip
                    found.append(f"{flag.arg}={ast.unparse(value)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_that_could_run_foreign_code_is_written(path: Path) -> None:
    assert _foreign_code(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from dill import loads", "torch.load(f)", "eval('1')", "exec(x)",
     "load(a, trust_remote_code=True)", "run(a, shell=flag)", "np.load(f)",
     "load(f, allow_pickle=True)", "f(weights_only=False)", "os.system('x')", "run(a, shell=1)",
     "f(weights_only=0)", "f(weights_only=None)", "from os import system", "numpy.load(f)"],
)  # fmt: skip
def test_the_search_for_foreign_code_finds_it(text: str) -> None:
    assert _foreign_code(text)
    assert not _foreign_code("load(a, trust_remote_code=False, shell=False); model.eval()")


_PROBE = (
    "import sys; {load}; bad = {names!r} & set(sys.modules); print(sorted(bad)); assert not bad"
)


@pytest.mark.parametrize(
    ("load", "absent"),
    [
        ("import audit.verify", {"torch", "flwr", "transformers", "opacus", "spacy", "peft"}),
        ("import audit.cli, audit.watermark", {"torch", "flwr", "transformers", "dp_accounting"}),
        ("import audit.cli, audit.verify", {"fastapi", "starlette", "uvicorn", "jinja2"}),
        (
            "import audit.report_html, audit.formats, audit.signoff, audit.index, audit.page_shelf",
            {"fastapi", "starlette", "uvicorn", "jinja2", "markupsafe", "torch"},
        ),
        (
            "import privacy.plan, privacy.ledger",
            {"torch", "flwr", "transformers", "opacus", "dp_accounting"},
        ),
        ("import model.shapes, model.frozen, model.catalog", {"torch", "transformers", "peft"}),
        ("import client.cli, server.cli", {"torch", "flwr", "transformers", "spacy", "peft"}),
        ("import client.node, client.runner", {"torch", "dp_accounting", "scipy", "spacy"}),
        ("import client.border", {"torch", "transformers", "opacus", "spacy", "peft"}),
        ("import privity", {"torch", "flwr", "transformers", "pydantic", "numpy", "sqlite3"}),
    ],
)
def test_an_import_loads_nothing_heavy(load: str, absent: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(load=load, names=absent)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{load} loads {done.stdout}{done.stderr[-500:]}"


def test_the_probe_notices_a_heavy_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(load="import numpy", names={"numpy"})],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0


def test_every_error_has_a_code_and_an_exit_code() -> None:
    from audit.errors import AuditError
    from client.errors import ClientError
    from configs.errors import ConfigError
    from model.errors import ModelError
    from privacy.errors import PrivacyError
    from server.errors import ServerError

    made = [
        AuditError("x", code="a-b"), ClientError("x"), ConfigError("x"), ModelError("x", code="a"),
        PrivacyError("x"), ServerError("x"),
    ]  # fmt: skip
    for error in made:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
        assert error.exit_code in (1, 2, 3, 4, 5)
        assert str(error) == "x"
