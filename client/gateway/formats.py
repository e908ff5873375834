"""The forms of an answer that a program can ask for: text, or JSON that is one of a few strings."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Label = Annotated[str, Field(min_length=1, max_length=500)]
# A bound, so that half a character, which JSON can spell and no tokenizer takes, is refused.
Text = Annotated[str, Field(max_length=1 << 20)]
# Words of JSON Schema that a program adds and that change nothing of a choice among strings.
_NOTES: Final = frozenset({"title", "description", "$schema", "default"})


class Closed(BaseModel):
    """A parameter that is silently ignored would look obeyed, so unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class StructuredOutputs(Closed):
    """What the answer must be one of; the name is vLLM's."""

    choice: Annotated[list[Label], Field(min_length=1, max_length=1000)]


class PlainText(Closed):
    """The form of an answer that needs no grammar."""

    type: Literal["text"]


class Choice(Closed):
    """A schema that is a choice among strings: by itself, or as an object's only property.

    Attributes:
        property: the name of that property; None for a string by itself.
        labels: the strings.
    """

    property: Label | None = None
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, schema: Any) -> Any:
        """Read a JSON Schema; whatever is not understood to the last word is refused."""
        if not isinstance(schema, dict):
            raise ValueError("not a schema")
        rest = {name: value for name, value in schema.items() if name not in _NOTES}
        named = rest.pop("$defs", {})
        if rest.get("type") != "object":
            return {"labels": _strings(rest, named)}
        properties = rest.pop("properties", None)
        if not isinstance(properties, dict) or len(properties) != 1:
            raise ValueError("not one property")
        ((name, value),) = properties.items()
        if rest.pop("additionalProperties", False) is not False or rest.pop("required", None) != [
            name
        ]:
            raise ValueError("more may or less must be there")
        if rest != {"type": "object"}:
            raise ValueError("more is asked of it")
        return {"property": name, "labels": _strings(value, named)}

    def write(self, label: str) -> str:
        """The JSON of an answer that the schema describes."""
        said: Any = label if self.property is None else {self.property: label}
        return json.dumps(said, ensure_ascii=False)


class NamedSchema(Closed):
    """A schema as OpenAI's interface wraps it."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    strict: bool | None = None
    choice: Annotated[Choice, Field(alias="schema")]


class JsonSchema(Closed):
    """JSON of a given schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainText | JsonSchema, Field(discriminator="type")]


def _strings(value: Any, named: Any) -> list[str]:
    """The strings of an enumeration; a reference is followed once, as pydantic writes an Enum."""
    if not isinstance(value, dict):
        raise ValueError("not a schema")
    rest = {name: it for name, it in value.items() if name not in _NOTES}
    if isinstance(link := rest.get("$ref"), str) and isinstance(named, dict) and len(rest) == 1:
        target = named.get(link.removeprefix("#/$defs/"))
        if not isinstance(target, dict):
            raise ValueError("not a schema")
        rest = {n: it for n, it in target.items() if n not in _NOTES}
    if rest.pop("type", "string") != "string":
        raise ValueError("not strings")
    if "const" in rest:  # a choice among one
        rest = {"enum": [rest.pop("const")], **rest}
    labels = rest.pop("enum", None)
    if rest or not isinstance(labels, list) or len(set(map(str, labels))) != len(labels):
        raise ValueError("not an enumeration of distinct strings")
    return labels
