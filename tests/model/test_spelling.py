"""The pieces of an answer spell the answer."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from model.spelling import Spelling


class Bytes:
    """A tokenizer whose tokens are bytes, 256 being a control token."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")


def pieces(
    text: str, stops: tuple[str, ...] = (), *, continues: bool = False
) -> tuple[list[str], bool]:
    spelling, said = Spelling(Bytes(), stops, continues=continues), []
    for token in text.encode():
        said.append(spelling.add(token))
        if spelling.stopped:
            break
    return [*said, spelling.end()], spelling.stopped


@settings(deadline=None)
@given(st.text(max_size=40))
def test_pieces_spell_the_text_without_the_space_around_it(text: str) -> None:
    said, stopped = pieces(text)
    assert "".join(said) == text.strip()
    assert not stopped


@settings(deadline=None)
@given(st.text("ab \n", max_size=20))
def test_what_continues_a_text_keeps_the_space_that_it_begins_with(text: str) -> None:
    said, _ = pieces(text, continues=True)
    assert "".join(said) == text.rstrip()


@settings(deadline=None)
@given(st.text("ab \n", max_size=30), st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3))
def test_pieces_end_before_the_first_stop(text: str, stops: list[str]) -> None:
    said, stopped = pieces(text, tuple(stops))
    whole = "".join(said)
    assert text.strip().startswith(whole)
    assert not any(stop in whole for stop in stops)
    # Space at the beginning is no part of an answer, so a stop that stands only there is not met.
    assert stopped == any(stop in text.lstrip() for stop in stops) or whole == text.strip()


def test_a_character_of_several_tokens_comes_whole() -> None:
    said, _ = pieces("a你🙂b")
    assert [piece for piece in said if piece] == ["a", "你", "🙂", "b"]
