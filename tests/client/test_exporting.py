"""Every form of a release says what the release says, and is signed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import privity
from audit import signing
from client import exporting, released
from client.errors import ClientError

KEY = "key.pem"


@pytest.fixture(scope="module")
def made(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release of the tiny model, whose adapter is far from nothing."""
    from model import adapter, base, catalog
    from model.export import save_folder
    from server import facts, release

    root = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVITY_HOME", str(tiny_home))
        folder = catalog.find("tiny-llama")
        loaded = base.load(folder)
    spec = adapter.Spec(rank=2, alpha=4, seed="s")
    rng = np.random.default_rng(5)
    arrays = {
        name: (0.3 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in adapter.read(adapter.attach(loaded, spec)).items()
    }
    digest = "sha256:" + "1" * 64
    told = facts.ReleaseFacts(
        release="r1", run="run", coordinator="north", software="privity 0.1.0",
        time=datetime(2026, 11, 22, tzinfo=UTC), licence="Apache-2.0", base_model="tiny-llama",
        base_digest=folder.digest, seed="s",
        plan={"task": {"labels": []}, "training": {"objective": "response"}},
        plan_digest=digest, institutions=("a",),
        claims=(facts.Claim("a", 1.0, 1e-6, 2.0, "person", "zero-out"),),
        rounds=(facts.Participation(0, ("a",)),), data={},
    )  # fmt: skip
    signing.create_key(root / KEY)
    release.cut(
        root / "r1", facts=told, key=root / KEY,
        adapter_files=lambda out: save_folder(out, folder=folder, spec=spec, arrays=arrays),
    )  # fmt: skip
    return root


@pytest.fixture
def export(made: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    monkeypatch.setattr(exporting, "PAIRS", exporting.PAIRS[:3])
    monkeypatch.setattr(exporting, "_TOKENS", 6)

    def run(form: Any) -> exporting.Exported:
        return exporting.export(
            made / "r1", released.load(made / "r1"), form, tmp_path / form, key=made / KEY
        )

    return run


@pytest.mark.parametrize(
    ("form", "furthest"), [("merged", 1e-5), ("f16", 0.05), ("int8", 0.2), ("int4", 3.0)]
)
def test_a_form_says_what_the_release_says_and_is_signed(
    export: Callable[[Any], exporting.Exported], made: Path, form: str, furthest: float
) -> None:
    found = export(form)
    assert found.measured.furthest <= furthest
    assert abs(found.measured.loss - found.measured.release_loss) <= exporting._ALLOWED[form]  # type: ignore[index]
    assert found.measured.bytes > 0
    signing.verify_folder(found.folder, made / f"{KEY}.pub")
    signing.verify_folder(made / "r1", made / f"{KEY}.pub")
    facts = json.loads((found.folder / "export.json").read_text())
    assert facts["form"] == form
    assert all((found.folder / name).is_file() for name in facts["files"])
    assert (found.folder / "release" / "model.sig").is_file()


def test_narrower_forms_are_smaller(export: Callable[[Any], exporting.Exported]) -> None:
    sizes = [export(form).measured.bytes for form in ("merged", "f16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)


def test_the_bill_of_materials_lists_the_export_and_stays_valid(
    export: Callable[[Any], exporting.Exported],
) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    folder = export("int8").folder
    text = (folder / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    subject = bom["metadata"]["component"]
    names = {part["name"] for part in subject["components"]}
    assert "model.q8_0.gguf" in names
    assert bom["components"][0]["name"] == "r1"
    assert bom["dependencies"][0] == {"ref": "export", "dependsOn": ["adapter"]}


def test_onnx_gives_the_same_logits_and_the_same_words(
    export: Callable[[Any], exporting.Exported],
) -> None:
    found = export("onnx")
    assert found.measured.furthest <= 1e-4
    assert found.measured.same_tokens == found.measured.tokens == 6
    assert found.measured.reader == "onnxruntime"


def test_an_onnx_export_keeps_its_matrices_by_name_so_that_it_can_be_traced(
    export: Callable[[Any], exporting.Exported], tmp_path: Path
) -> None:
    from audit import mark_files
    from audit.errors import AuditError

    graph, whole = export("onnx").folder, export("merged").folder
    found, wanted = mark_files.tensors(graph), mark_files.tensors(whole)
    layers = [name for name in wanted if ".layers." in name]
    assert len(layers) == 18
    for name in layers:
        np.testing.assert_array_equal(found[name](), wanted[name]())
    data = graph / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(AuditError, match="not a whole ONNX model"):
        mark_files.tensors(graph)[layers[-1]]()
    (tmp_path / "x.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(AuditError, match="not a whole ONNX model"):
        mark_files.tensors(tmp_path / "x.onnx")


def test_a_graph_cannot_name_files_outside_its_folder(
    export: Callable[[Any], exporting.Exported], tmp_path: Path
) -> None:
    import onnx

    from audit import mark_files
    from audit.errors import AuditError

    file = export("onnx").folder / "model.onnx"
    graph = onnx.load(str(file), load_external_data=False)
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    for item in graph.graph.initializer:
        for entry in item.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    file.write_bytes(graph.SerializeToString())
    found = mark_files.tensors(file)
    name = next(n for n in found if n.endswith("q_proj.weight"))
    with pytest.raises(AuditError, match="not a whole ONNX model"):
        found[name]()


def test_a_form_that_says_something_else_is_not_exported(
    export: Callable[[Any], exporting.Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from model import gguf_writer

    monkeypatch.setattr(gguf_writer, "_paired", lambda key, array, config: -array)
    with pytest.raises(ClientError, match="differs") as caught:
        export("f16")
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(
    export: Callable[[Any], exporting.Exported], tmp_path: Path
) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(ClientError, match="exists"):
        export("merged")


def test_a_tokenizer_that_gguf_has_no_name_for_is_refused(
    export: Callable[[Any], exporting.Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import gguf_tokens
    from model.errors import ModelError

    for rule in ({"type": "Whitespace"}, {"type": "Sequence", "pretokenizers": []}, {}):
        with pytest.raises(ModelError, match="splits"):
            gguf_tokens._split(rule)
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    assert gguf_tokens._split({"type": "Sequence", "pretokenizers": [digits, level]}) == "smollm"


def test_the_command_exports_only_what_verifies(
    made: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    given = [
        "export", str(made / "r1"), "--key", str(made / f"{KEY}.pub"), "--form", "int8",
        "--sign-with", str(tmp_path / "own.pem"), "--out", str(tmp_path / "int8"),
    ]  # fmt: skip
    assert privity.main([*given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["form"] == "int8"
    signing.verify_folder(tmp_path / "int8", Path(told["public_key"]))
    altered = tmp_path / "r1"
    shutil.copytree(made / "r1", altered)
    (altered / "README.md").write_text("another card")
    assert privity.main(["export", str(altered), *given[2:-1], str(tmp_path / "x")]) == 4
    assert not (tmp_path / "x").exists()
    assert privity.main([*given[:4], "--out", str(tmp_path / "y")]) == 2
