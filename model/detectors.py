"""Further detectors of identifiers from a local folder: token classifiers, and GLiNER.

Off unless a site names one with its digest. Nothing is downloaded, no code of the folder runs, and
weights are safetensors only. What a detector finds is only ever added to what the scrubber finds;
a medical one only says which words are medicine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from model.errors import ModelError

Hits = Sequence[tuple[int, int, str, float]]
Use = Literal["token-classification", "gliner", "medical"]

_ALLOWED: Final = {".json", ".txt", ".safetensors", ".model", ".md", ".jinja", ".spm", ""}
_WINDOW: Final = 510
_OVERLAP: Final = 64
_KNOWN: Final[Mapping[str, str]] = {
    **dict.fromkeys(("per", "person", "name", "patient", "doctor", "staff", "hcp", "username",
                     "first_name", "last_name", "private_person"), "PERSON"),
    **dict.fromkeys(("loc", "gpe", "address", "street", "street_address", "location",
                     "private_address", "zip", "zipcode", "city"), "ADDRESS"),
    **dict.fromkeys(("phone", "phone_number", "telephone", "fax", "private_phone"), "PHONE_NUMBER"),
    **dict.fromkeys(("email", "email_address", "e-mail", "private_email"), "EMAIL_ADDRESS"),
    **dict.fromkeys(("date", "date_time", "dob", "date_of_birth", "private_date"), "DATE_TIME"),
    **dict.fromkeys(("id", "mrn", "medicalrecord", "medical_record_number", "account_number",
                     "idnum", "license", "device", "healthplan", "record_number"), "RECORD_NUMBER"),
    **dict.fromkeys(("ssn", "passport", "passport_number", "national_id"), "NATIONAL_ID"),
    **dict.fromkeys(("credit_card", "credit_card_number", "card"), "CREDIT_CARD"),
    "iban": "IBAN_CODE",
}  # fmt: skip
ASKED: Final = ("person", "address", "phone number", "email address", "date of birth",
                "medical record number", "passport number", "account number")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detector:
    """A loaded detector.

    Attributes:
        find: reads a text; start, end, label and score of each find, in code points.
        labels: what it can say.
    """

    find: Callable[[str], Hits] = field(repr=False)
    labels: tuple[str, ...]


def load(path: Path, *, use: Use, digest: str, labels: Mapping[str, str]) -> Detector:
    """Load a detector from a folder whose digest is pinned.

    Args:
        path: the folder.
        use: what kind it is; a "medical" one is a token classifier.
        digest: "sha256:..." by `folder_digest`.
        labels: type of identifier by label; a GLiNER is asked for these.

    Raises:
        ModelError: no such folder, a file that may hold code, or a library that is not installed
            (2); other files than the pinned ones (4).
    """
    checked_files(path, kind="detector")
    found = folder_digest(path)
    if found != digest:
        raise ModelError(
            f"the detector in {path} is refused: its digest is {found}, and site.toml pins "
            "another; if you changed it yourself, pin the new one",
            code="model-digest",
            exit_code=4,
        )
    return _gliner(path, labels) if use == "gliner" else _classifier(path)


def checked_files(path: Path, *, kind: str) -> None:
    """Check that a folder holds nothing but safetensors, JSON and text.

    Raises:
        ModelError: there is no such folder, or a file in it may hold code.
    """
    if not path.is_dir():
        where = "site.toml" if kind == "detector" else "the path"
        raise ModelError(f"{path} is no folder of a {kind}; correct {where}", code="no-model")
    for file in _files(path):
        if file.suffix.lower() not in _ALLOWED or file.is_symlink():
            raise ModelError(
                f"{path} holds {file.name}, and files of that kind may hold code; keep only "
                "safetensors, JSON and text",
                code="unsafe-file",
            )


def folder_digest(path: Path) -> str:
    """The digest over the names and digests of a folder's files."""
    total = hashlib.sha256()
    for file in _files(path):
        name = file.relative_to(path).as_posix().encode()
        with file.open("rb") as handle:
            inner = hashlib.file_digest(handle, "sha256").digest()
        total.update(len(name).to_bytes(4, "big") + name + inner)
    return f"sha256:{total.hexdigest()}"


def types(labels: Iterable[str], said: Mapping[str, str]) -> dict[str, str]:
    """Type of identifier by a detector's label; a label that says nothing here is left out."""
    found = {label: said.get(label) or _KNOWN.get(label.lower().replace(" ", "_"))
             for label in labels}  # fmt: skip
    return {label: kind for label, kind in found.items() if kind is not None}


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() or file.is_symlink())


def _classifier(path: Path) -> Detector:
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, use_fast=True
        )
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except Exception as fault:
        raise ModelError(
            f"{path} cannot be loaded as a token classifier ({type(fault).__name__}); check its "
            "files",
            code="bad-model",
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{path} has no fast tokenizer, and only one says where words stand; add "
            "tokenizer.json",
            code="bad-model",
        )
    names = {int(number): str(name) for number, name in model.config.id2label.items()}
    room = min(_WINDOW, int(getattr(model.config, "max_position_embeddings", _WINDOW)) - 4)

    def find(text: str) -> Hits:
        return list(_classify(text, tokenizer, model, names, room))

    plain = dict.fromkeys(_plain(name) for name in names.values())
    return Detector(find, tuple(name for name in plain if name != "O"))


def _classify(
    text: str, tokenizer: Any, model: Any, names: Mapping[int, str], room: int
) -> Iterator[tuple[int, int, str, float]]:
    """Yield runs of tokens of one label, window by window; windows overlap."""
    import torch

    if not text.strip():
        return
    windows = tokenizer(
        text, truncation=True, max_length=room, stride=min(_OVERLAP, room // 4),
        return_overflowing_tokens=True, return_offsets_mapping=True, padding=True,
        return_tensors="pt",
    )  # fmt: skip
    inputs = {key: windows[key] for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        scores = torch.softmax(model(**inputs).logits.float(), dim=-1)
    best, label = scores.max(dim=-1)
    for row, offsets in enumerate(windows["offset_mapping"].tolist()):
        run: list[Any] | None = None
        for at, (start, end) in enumerate(offsets):
            name = _plain(names[int(label[row, at])]) if end > start else "O"
            first = names[int(label[row, at])].startswith("B-")
            if run is not None and (name != run[2] or (first and start > run[1])):
                yield run[0], run[1], run[2], run[3]
                run = None
            if name == "O" or not inputs["attention_mask"][row, at]:
                continue
            score = float(best[row, at])
            # The least sure token speaks for the run.
            run = [start, end, name, score] if run is None else [run[0], end, name,
                                                                 min(run[3], score)]  # fmt: skip
        if run is not None:
            yield run[0], run[1], run[2], run[3]


def _plain(label: str) -> str:
    return label[2:] if label[:2] in {"B-", "I-", "E-", "S-", "L-", "U-"} else label


def _gliner(path: Path, labels: Mapping[str, str]) -> Detector:
    try:
        import gliner
    except ImportError:
        raise ModelError(
            "a detector of kind gliner needs the package gliner; install it beside privity",
            code="no-library",
        ) from None
    asked = tuple(labels) or ASKED
    try:
        model = gliner.GLiNER.from_pretrained(str(path), local_files_only=True)
    except Exception as fault:
        raise ModelError(
            f"{path} cannot be loaded as a GLiNER ({type(fault).__name__}); check its files",
            code="bad-model",
        ) from None

    def find(text: str) -> Hits:
        found = model.predict_entities(text, list(asked), threshold=0.05)
        return [(int(f["start"]), int(f["end"]), str(f["label"]), float(f["score"])) for f in found]

    return Detector(find, asked)
