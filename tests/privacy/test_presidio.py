"""What is made for Presidio works with ours: YAML, other people's recognisers, its own engine."""

from __future__ import annotations

import pytest
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerResult

from privacy import recognizers
from privacy.errors import PlanInvalid, Quarantined
from privacy.scrub import Scrubber
from privacy.scrub_models import Engine

SECRET = b"s" * 32
YAML = """
recognizers:
  - name: BadgeRecognizer
    supported_entity: BADGE
    supported_language: en
    patterns:
      - name: badge
        regex: "BDG~[a-z]{4}"
        score: 0.8
  - name: WardRecognizer
    supported_entity: WARD
    supported_language: en
    deny_list: [Foxglove East]
"""


class Colours(EntityRecognizer):
    """Somebody else's recogniser, with an error on demand."""

    def __init__(self) -> None:
        super().__init__(supported_entities=["COLOUR"], name="Colours")

    def load(self) -> None:
        pass

    def analyze(self, text, entities, nlp_artifacts=None):
        if "burst" in text:
            raise RuntimeError(text)
        at = text.find("mauve")
        return [] if at < 0 else [RecognizerResult("COLOUR", at, at + 5, 0.9)]


def test_a_sites_yaml_adds_recognisers(tmp_path):
    path = tmp_path / "recognizers.yaml"
    path.write_text(YAML)
    plain = Scrubber.load(secret=SECRET, language="en")
    tool = Scrubber.load(secret=SECRET, language="en", recognizers_yaml=path)
    text = "the badge BDG~wxyz opens Foxglove East"
    assert {"BADGE", "WARD"} <= set(tool.scrub(text, person="p").counts)
    assert not {"BADGE", "WARD"} & set(plain.scrub(text, person="p").counts)
    assert "wxyz" not in tool.scrub(text, person="p").text
    assert tool.digest != plain.digest


def test_a_sites_pattern_that_takes_too_long_holds_the_text_back(tmp_path, monkeypatch):
    path = tmp_path / "recognizers.yaml"
    slow = YAML.replace("BDG~[a-z]{4}", "(?:x+)+(?:x+)+(?:x+)+y(?<!xy)")
    path.write_text(slow)
    monkeypatch.setattr("privacy.search.CPU_S", 0.02)
    tool = Scrubber.load(secret=SECRET, language="en", recognizers_yaml=path)
    with pytest.raises(Quarantined) as caught:
        tool.scrub("x" * 4000, person="p")
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("content", ["recognizers: 3", "[", "recognizers: [{name: x}]"])
def test_yaml_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "recognizers.yaml"
    path.write_text(content)
    with pytest.raises(PlanInvalid):
        recognizers.from_yaml(path)


def test_another_recogniser_is_used_and_fails_closed():
    tool = Scrubber.load(secret=SECRET, language="en", more=[Colours()])
    assert tool.scrub("she wore mauve", person="p").counts == {"COLOUR": 1}
    assert "mauve" not in tool.scrub("she wore mauve", person="p").text
    with pytest.raises(Quarantined) as caught:
        tool.scrub("burst of light", person="p")
    assert caught.value.code == "detector-failed"


def test_presidios_own_engine_runs_our_recognisers_and_explains_them():
    engine = AnalyzerEngine(
        registry=recognizers.registry("clinical"),
        nlp_engine=Engine("en"),
        supported_languages=["en"],
    )
    text = "Maria Lopez, MRN 4482913"
    found = engine.analyze(text, language="en", return_decision_process=True)
    record = next(hit for hit in found if hit.entity_type == "RECORD_NUMBER")
    assert text[record.start : record.end] == "4482913"
    assert record.analysis_explanation.pattern_name in {"record-clue", "digits", "clue-spaced"}
    assert any(hit.entity_type == "PERSON" for hit in found)


def test_a_reason_names_the_recogniser_and_its_pattern():
    tool = Scrubber.load(secret=SECRET, language="en")
    scrubbed, reasons = tool.explain("MRN 4482913", person="p")
    assert scrubbed == tool.scrub("MRN 4482913", person="p")
    assert "PrivityRecordNumber/record-clue" in {reason.recogniser for reason in reasons}
    assert {(reason.start, reason.end) for reason in reasons} >= {(4, 11)}
    assert "4482913" not in repr(reasons)
