"""An institution's answers are marked with its own key, and each says whether it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from audit import response, text_mark
from audit.errors import AuditError
from client import folder, text_marking


@pytest.fixture
def site(tmp_path: Path) -> folder.Folder:
    return folder.create(tmp_path / "a", name="clinic-a", coordinator="h:1")


def test_the_key_is_made_once_and_is_the_institutions_own(site: folder.Folder) -> None:
    first = text_marking.key(site)
    assert text_marking.key(site) == first
    path = site.path / text_marking.KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text().replace("clinic-a", "clinic-b"))
    with pytest.raises(AuditError, match="another institution"):
        text_marking.key(site)


def test_a_row_marks_the_answer_and_leaves_the_conversation_out(site: folder.Folder) -> None:
    key = text_marking.key(site)
    of = text_marking.sampling(key)
    rng = np.random.default_rng(1)
    conversation = [7, 7, 7, 7, 7, 7]
    row = of(SimpleNamespace(temperature=1.0, top_p=0.95))
    answer: list[int] = []
    for _ in range(60):
        logits = rng.normal(size=300).astype(np.float32)
        answer.append(row(logits, (*conversation, *answer)))
    assert text_mark.detect(answer, key.key).marked
    assert row._sampler.unmarked >= text_mark.CONTEXT


def test_greedy_answers_are_not_marked_and_say_so(site: folder.Folder) -> None:
    key = text_marking.key(site)
    assert text_marking.sampling(key)(SimpleNamespace(temperature=0.0, top_p=1.0)) is None
    assert text_marking.sampling(None)(SimpleNamespace(temperature=1.0, top_p=1.0)) is None
    assert "temperature 0" in text_marking.describe(key, temperature=0.0)["reason"]
    assert "no text key" in text_marking.describe(None, temperature=1.0)["reason"]
    said = text_marking.describe(key, temperature=0.7)
    assert (said["marked"], said["key_id"]) == (True, key.id)
    assert key.key.hex() not in str(said)


def test_the_record_of_an_answer_is_signed_and_holds_only_its_digest(site: folder.Folder) -> None:
    notary = text_marking.Notary.of(site, mark=True)
    answer = "Zebulon Quartermaine"
    made = text_marking.record(notary, release="r1", answer=answer, temperature=0.7)
    public = site.keys().event.public_key().public_bytes_raw()
    document = response.check(made, public, answer=answer)
    assert document["institution"] == "clinic-a"
    assert document["text_mark"]["marked"] is True
    assert "Zebulon" not in str(document)
