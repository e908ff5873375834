"""The release's bill of materials: CycloneDX 1.6 with a model card (ML-BOM)."""

from __future__ import annotations

import json
import uuid
from datetime import UTC
from typing import Any

from server import card
from server.facts import ReleaseFacts, Scores

SPEC_VERSION = "1.6"
_ADAPTER, _BASE, _DATA = "adapter", "base-model", "training-data"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "privity.invalid")
# The ids that releases use in practice; anything else is written as a name, which is also valid.
_SPDX = frozenset({"Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0"})


def text(facts: ReleaseFacts, *, files: dict[str, str]) -> str:
    """Write the ML-BOM as JSON.

    Args:
        facts: checked with `facts.check`.
        files: name -> "sha256:<hex>" of the adapter's files.

    Guarantees: valid under the strict CycloneDX 1.6 schema; the same arguments give the same
        bytes (the serial number derives from them).
    """
    tool, _, version = facts.software.partition(" ")
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "timestamp": facts.time.astimezone(UTC).isoformat(timespec="seconds"),
            "tools": {"components": [{"type": "application", "name": tool, "version": version}]},
            "component": _adapter(facts, files),
        },
        "components": [_base(facts), _data(facts)],
        "dependencies": [
            {"ref": _ADAPTER, "dependsOn": [_BASE, _DATA]},
            {"ref": _BASE},
            {"ref": _DATA},
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(_NAMESPACE, content).urn
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _adapter(facts: ReleaseFacts, files: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _ADAPTER,
        "name": facts.release,
        "version": facts.run,
        "description": f"LoRA adapter for {facts.base_model}, trained by several institutions.",
        "supplier": {"name": facts.coordinator},
        "licenses": [{"license": _licence(facts.licence)}],
        "components": [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_hash(digest)]}
            for name, digest in sorted(files.items())
        ],
        "properties": [
            {"name": "privity:plan", "value": facts.plan_digest},
            {"name": "privity:contributors", "value": ", ".join(facts.contributors)},
            {"name": "privity:seed", "value": facts.seed},
        ],
        "modelCard": _model_card(facts),
    }


def _model_card(facts: ReleaseFacts) -> dict[str, Any]:
    document: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": "LoRA",
            "datasets": [{"ref": _DATA}],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "considerations": {
            "technicalLimitations": [
                "Not validated for any decision about a person.",
                "De-identification does not find every identifier.",
            ],
            "ethicalConsiderations": [
                {
                    "name": f"Privacy of the persons behind the records of {claim.institution}",
                    "mitigationStrategy": card.claim_sentence(claim, run=facts.run),
                }
                for claim in facts.claims
            ],
        },
    }
    if facts.evaluation is not None:
        slice_of = f"{facts.evaluation.data} ({facts.evaluation.records} records)"
        document["quantitativeAnalysis"] = {
            "performanceMetrics": [
                {"type": f"{model} {name}", "value": value, "slice": slice_of}
                for model, scores in (
                    ("base", facts.evaluation.base),
                    ("released", facts.evaluation.released),
                )
                for name, value in _metrics(scores)
            ]
        }
    return document


def _metrics(scores: Scores) -> tuple[tuple[str, str], ...]:
    return (
        ("accuracy", f"{scores.accuracy:.4f}"),
        ("macro F1", f"{scores.macro_f1:.4f}"),
        ("response loss", f"{scores.loss:.4f}"),
    )


def _base(facts: ReleaseFacts) -> dict[str, Any]:
    # Its digest is over a list of files, so it is no hash of one file and stands as a property.
    return {
        "type": "machine-learning-model",
        "bom-ref": _BASE,
        "name": facts.base_model,
        "properties": [{"name": "privity:files", "value": facts.base_digest}],
    }


def _data(facts: ReleaseFacts) -> dict[str, Any]:
    summary = "; ".join(f"{heading}: {sentence}" for heading, sentence in facts.data.items())
    return {
        "type": "data",
        "bom-ref": _DATA,
        "name": f"records of {', '.join(facts.contributors)}",
        "description": summary or "not described by the institutions",
        "data": [
            {
                "type": "dataset",
                "name": "training records",
                "classification": "confidential; never left the institutions",
            }
        ],
    }


def _licence(name: str) -> dict[str, str]:
    return {"id": name} if name in _SPDX else {"name": name}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}
