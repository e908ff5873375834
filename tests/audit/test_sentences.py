"""The claims lint: a report cannot say what has no reference, nor in words of its own."""

from __future__ import annotations

import pytest

from audit import sentences, wording
from audit.sentences import Reference, Row, Section, Sentence, Unfounded, say

HERE = Reference("entry", "hub:1", "sha256:" + "0" * 64)


def test_a_sentence_without_a_reference_cannot_be_made() -> None:
    say("limit-signals", [HERE])
    with pytest.raises(Unfounded):
        say("limit-signals", [])
    with pytest.raises(Unfounded):
        Sentence("limit-signals", ("hub:1",))  # type: ignore[arg-type]
    with pytest.raises(Unfounded):
        Row(("a",), ())


def test_a_sentence_in_words_of_its_own_cannot_be_made() -> None:
    with pytest.raises(Unfounded):
        say("All is well.", [HERE])
    with pytest.raises(Unfounded):
        say("undecided", [HERE])  # the value is missing
    with pytest.raises(Unfounded):
        say("undecided", [HERE], site="a", more="b")
    with pytest.raises(AttributeError):
        say("limit-signals", [HERE]).template = "holds"  # type: ignore[misc]


def test_a_heading_states_nothing() -> None:
    with pytest.raises(Unfounded):
        Section("Everything is fine.", ())


@pytest.mark.parametrize(
    ("place", "digest"), [("", "sha256:1"), ("hub:1", ""), ("no-such-recomputation", "x")]
)
def test_a_reference_to_nothing_cannot_be_made(place: str, digest: str) -> None:
    with pytest.raises(Unfounded):
        Reference("check", place, digest)


@pytest.mark.parametrize("name", sorted(wording.TEMPLATES))
def test_every_template_passes_the_language_rules(name: str) -> None:
    sentences.check_language(wording.TEMPLATES[name])


@pytest.mark.parametrize(
    "template",
    [
        "This proves it.",
        "The data are anonymous.",
        "It is secure.",
        "The run is compliant.",
        "Nothing can leak, guaranteed.",
        "No full stop",
        "The loss is ε = {epsilon}.",
        "The loss is ε = {epsilon} at δ = {delta} for one {unit}, {scope}.",
        "It is differentially private.",
        "It is ({epsilon}, {delta})-differentially private for one {unit}.",
    ],
)
def test_the_language_rules_refuse(template: str) -> None:
    with pytest.raises(Unfounded):
        sentences.check_language(template)


def test_epsilon_may_be_said_with_everything_beside_it() -> None:
    sentences.check_language(
        "{scope} is ε = {epsilon} at δ = {delta} for one {unit} under {adjacency} adjacency."
    )


def test_distinct_references_have_distinct_anchors() -> None:
    places = ["a-1:2", "a:12", "a_1:2", "a.1:2", "a-1-2:0"]

    assert len({Reference("entry", place, "x").anchor for place in places}) == len(places)
