"""A release in other forms: merged, GGUF at 16, 8 and 4 bits, ONNX; each checked, measured, signed.

An export is made of a verified release on this machine. Before it counts it is loaded back and
compared with the release on public text. It keeps the release's watermark, since its weights are
the release's, rounded; `privity audit trace` reads it from them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from audit import digests, signing
from client.errors import ClientError
from client.general import PAIRS

if TYPE_CHECKING:
    from client.released import Released

Form = Literal["merged", "f16", "int8", "int4", "onnx"]
FORMS: Final[tuple[Form, ...]] = ("merged", "f16", "int8", "int4", "onnx")
FACTS_FILE: Final = "export.json"
_WIDTHS: Final[dict[Form, Any]] = {"f16": "f16", "int8": "q8_0", "int4": "q4_0"}
# How far the loss on public text may move, in nats a token: beyond it something is wrong, rather
# than rounded.
_ALLOWED: Final[dict[Form, float]] = {
    "merged": 0.001, "f16": 0.01, "int8": 0.05, "int4": 1.0, "onnx": 0.001,
}  # fmt: skip
# What tokenizers spell differently: spaces, lines, accents, other scripts, rare signs.
_SPELLINGS: Final = (
    "two  spaces,\ta tab\nand a line",
    " led by a space",
    "Zürich, señor, naïve",
    "请问我的卡在哪里",
    "привет, 🙂 and \u2603!",
    "don't re-do_this (or/that) = x**y",
)
_TOKENS: Final = 24  # generated to compare and to time
_RELEASE_FILES: Final = ("README.md", "release.json", "model.sig")
_TOKENIZER: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
)
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found when an export was loaded back.

    Attributes:
        bytes: of its weights.
        loss: nats a token on forty questions of everyday knowledge.
        release_loss: of the release itself on the same.
        furthest: largest difference of a logit from the release's, on the first of them.
        same_tokens: generated tokens in a row that are the release's, of `tokens`.
        tokens_per_s: of generation, without a cache, by the reader named in `reader`.
    """

    bytes: int
    loss: float
    release_loss: float
    furthest: float
    same_tokens: int
    tokens: int
    tokens_per_s: float
    reader: str


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export folder."""

    folder: Path
    form: Form
    digest: str
    measured: Measured


def export(
    release: Path,
    released: Released,
    form: Form,
    out: Path,
    *,
    key: Path,
    progress: Progress = lambda step, share: None,
) -> Exported:
    """Write a verified release in another form.

    Args:
        release: its folder.
        released: the same, loaded; it is merged and of no use afterwards.
        form: see `FORMS`.
        out: the folder to make; must not exist.
        key: private key that signs the export (ECDSA P-256, PEM).
        progress: called with a step's name and the share done.

    Guarantees: `out` appears complete, checked and signed, or not at all.

    Raises:
        ClientError: `out` exists, or the export does not say what the release says, or splits text
            into other tokens (exit code 4).
        ModelError: the form is not written for this model.
    """
    if out.exists() or out.is_symlink():
        raise ClientError(f"{out} exists; choose a new folder", code="out-exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
    try:
        folder = work / "export"
        folder.mkdir()
        measured = _write(released, form, work, folder, progress)
        _describe(release, released, form, folder, measured)
        progress("sign", 0.95)
        signing.sign_folder(folder, key)
        folder.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(out, form, digests.folder_digest(out), measured)


def _write(
    released: Released, form: Form, work: Path, folder: Path, progress: Progress
) -> Measured:
    from model import gguf_writer, merged

    progress("the release's own answers", 0.0)
    with released.arm(tuned=True) as model:
        wanted = _answers(released, model)
        whole = work / "merged"
        whole.mkdir()
        progress("merge", 0.2)
        weights = merged.merge(model, released.base, whole)
    if form == "merged":
        for file in whole.iterdir():
            shutil.move(str(file), folder / file.name)
        written = folder
    elif form == "onnx":
        progress("trace", 0.3)
        written = folder / "model.onnx"
        merged.write_onnx(merged.read_back(whole), written)
        _copy_tokenizer(whole, folder)
    else:
        written = folder / f"model.{_WIDTHS[form]}.gguf"
        gguf_writer.write(
            written, whole, weights, _WIDTHS[form], name=released.name,
            progress=lambda done, total: progress("write", 0.3 + 0.3 * done / total),
        )  # fmt: skip
    del weights
    progress("load back", 0.7)
    return _check(released, form, folder, written, wanted)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a model says to the same public text, before and after."""

    loss: float
    logits: Any
    greedy: tuple[int, ...]
    seconds: float


def _answers(released: Released, model: Any) -> _Answers:
    from model import merged, prompts, scoring

    loss = float(scoring.losses(model, released.base, PAIRS).mean())
    first = list(prompts.prompt(released.base, PAIRS[0][0], max_tokens=128))
    logits = merged.logits(model, [first])
    began = time.perf_counter()
    greedy = merged.greedy(model, first, tokens=_TOKENS)
    return _Answers(loss, logits, tuple(greedy), time.perf_counter() - began)


def _check(
    released: Released, form: Form, folder: Path, written: Path, wanted: _Answers
) -> Measured:
    from model import merged

    if form == "onnx":
        found, reader = _onnx_answers(released, merged.OnnxModel(written)), "onnxruntime"
    else:
        found, reader = _answers(released, merged.read_back(written)), "transformers"
        if written.suffix == ".gguf":
            reader += ", dequantised"
            _check_words(released, written)
    gap = abs(found.loss - wanted.loss)
    if not gap <= _ALLOWED[form]:
        raise ClientError(
            f"the export's loss on public text differs from the release's by {gap:.3f} nats a "
            f"token, and at most {_ALLOWED[form]:g} is rounding; nothing was exported",
            code="export-differs",
            exit_code=4,
        )
    same = 0
    for one, other in zip(found.greedy, wanted.greedy, strict=True):
        if one != other:
            break
        same += 1
    weights = [
        f for f in folder.rglob("*") if f.suffix in (".gguf", ".safetensors", ".onnx", ".data")
    ]
    return Measured(
        bytes=sum(file.stat().st_size for file in weights),
        loss=found.loss,
        release_loss=wanted.loss,
        furthest=float(np.abs(found.logits - wanted.logits).max()),
        same_tokens=same,
        tokens=_TOKENS,
        tokens_per_s=_TOKENS / max(found.seconds, 1e-9),
        reader=reader,
    )


def _check_words(released: Released, file: Path) -> None:
    """Check that the file's own tokenizer reads texts as the release's does."""
    from model import merged

    tool = released.base.tokenizer
    texts = [*(text for pair in PAIRS for text in pair), *_SPELLINGS]
    # Digits are left out: not every reader knows each rule of splitting them by its name.
    texts = ["".join(c for c in text if not c.isdigit()) for text in texts]
    wanted = [list(tool(text, add_special_tokens=False)["input_ids"]) for text in texts]
    wrong = sum(a != b for a, b in zip(merged.read_tokens(file, texts), wanted, strict=True))
    if wrong:
        raise ClientError(
            f"the export's tokenizer reads {wrong} of {len(texts)} texts in other tokens than the "
            "release's; nothing was exported: export the merged model instead",
            code="export-differs",
            exit_code=4,
        )


def _onnx_answers(released: Released, model: Any) -> _Answers:
    """The same as `_answers`, computed by onnxruntime from token ids alone."""
    from model import prompts

    losses = []
    for ask, reply in PAIRS:
        example = prompts.encode(released.base, ask, reply, max_tokens=256)
        scores = model.logits([list(example.ids)])[0].astype(np.float64)
        told = scores[example.prompt_tokens - 1 : len(example.ids) - 1]
        peak = told.max(axis=1, keepdims=True)
        norms = peak[:, 0] + np.log(np.exp(told - peak).sum(axis=1))
        labels = list(example.ids[example.prompt_tokens :])
        losses.append(float((norms - told[range(len(labels)), labels]).mean()))
    first = list(prompts.prompt(released.base, PAIRS[0][0], max_tokens=128))
    logits = model.logits([first])
    began = time.perf_counter()
    greedy = model.greedy(first, tokens=_TOKENS)
    return _Answers(float(np.mean(losses)), logits, tuple(greedy), time.perf_counter() - began)


def _copy_tokenizer(whole: Path, folder: Path) -> None:
    for name in _TOKENIZER:
        if (whole / name).is_file():
            shutil.copyfile(whole / name, folder / name)


def _describe(
    release: Path, released: Released, form: Form, folder: Path, measured: Measured
) -> None:
    """Card, facts and bill of materials: the release's, with what was made of it."""
    origin = folder / "release"
    origin.mkdir()
    for name in _RELEASE_FILES:
        shutil.copyfile(release / name, origin / name)
    files = {
        str(path.relative_to(folder)): digests.file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    facts = {
        "format": 1,
        "release": released.name,
        "release_digest": digests.folder_digest(release),
        "form": form,
        "files": files,
        "measured": asdict(measured),
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", "utf-8")
    bom = json.loads((release / "bom.cdx.json").read_text("utf-8"))
    text = json.dumps(_listed(bom, released.name, form, files), indent=2, sort_keys=True)
    (folder / "bom.cdx.json").write_text(text + "\n", "utf-8")
    (folder / "README.md").write_text(_card(released.name, form, measured), "utf-8")


def _listed(bom: dict[str, Any], name: str, form: Form, files: Mapping[str, str]) -> dict[str, Any]:
    """The release's bill of materials with the export as its subject, made of the release."""
    subject = bom["metadata"]["component"]
    made = {
        "type": "machine-learning-model",
        "bom-ref": "export",
        "name": f"{name} ({form})",
        "version": subject["version"],
        "description": f"The release {name} in the form {form}; the weights are the release's.",
        "components": [
            {
                "type": "file",
                "bom-ref": f"export:{file}",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
            }
            for file, digest in files.items()
        ],
    }
    bom = {key: value for key, value in bom.items() if key != "serialNumber"}
    bom["metadata"] = {**bom["metadata"], "component": made}
    bom["components"] = [subject, *bom["components"]]
    bom["dependencies"] = [
        {"ref": "export", "dependsOn": [subject["bom-ref"]]}, *bom["dependencies"],
    ]  # fmt: skip
    return bom


def _card(name: str, form: Form, measured: Measured) -> str:
    return f"""\
# {name}, in the form {form}

Made from the release `{name}`, whose card, facts and signature are in `release/`. What that card
says about training, privacy and use holds for this form as well: turning weights into another form
looks at no record and costs no ε. The watermark stays in the weights.

| loaded back with {measured.reader} | |
|---|---|
| weights | {measured.bytes / 1e6:.1f} MB |
| loss on public text, nats a token | {measured.loss:.4f} |
| that of the release itself | {measured.release_loss:.4f} |
| largest difference of a logit | {measured.furthest:.2g} |
| first generated tokens that are the release's | {measured.same_tokens} of {measured.tokens} |
| tokens a second, without a cache | {measured.tokens_per_s:.1f} |

`model.sig` is an OpenSSF Model Signing bundle over every file of this folder.
"""
