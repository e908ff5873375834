"""Made-up records, and preparations of them, for the tests of `client.prepare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from client import folder as folders
from client.prepare import pipeline
from configs.prepare import Recipe

Row = dict[str, Any]


def recipe_of(**tables: Any) -> Recipe:
    return Recipe.model_validate(tables)


def prepared(site: folders.Folder, rows: Sequence[Row], **more: Any) -> pipeline.Outcome:
    source = site.path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(**more.pop("recipe", {}))
    return pipeline.prepare(site, source, recipe, **more)


def lines_of(done: pipeline.Outcome, side: str) -> list[Row]:
    text = (done.made.path / f"{side}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def one_row(person: str, text: str, answer: str = "yes it is", **more: Any) -> Row:
    return {"unit_id": person, "instruction": text, "response": answer, **more}


def some_words(count: int, start: int = 0) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join(
        f"w{letters[n % 26]}{letters[n // 26 % 26]}{letters[n // 676]}"
        for n in range(start, start + count)
    )


def many(count: int = 60) -> list[Row]:
    return [one_row(f"p{n}", some_words(12, 7 * n), "abc"[n % 3] * 3, category="abc"[n % 3])
            for n in range(count)]  # fmt: skip
