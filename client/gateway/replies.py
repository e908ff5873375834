"""Requests and answers in the shape of OpenAI's interface, and errors that quote nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from client.gateway.formats import (
    Closed,
    JsonSchema,
    NamedSchema,
    PlainText,
    ResponseFormat,
    StructuredOutputs,
    Text,
)
from client.gateway.question import Finish

LONGEST_ANSWER_TOKENS: Final = 2048
_MOST_STOPS: Final = 4

Limit = Annotated[int, Field(ge=1, le=LONGEST_ANSWER_TOKENS)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]


class TextPart(Closed):
    """One text part of a message."""

    type: Literal["text"]
    text: Text


class ChatMessage(Closed):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """Role and text, parts joined."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": "\n".join(part.text for part in self.content)}


class StreamOptions(Closed):
    """Whether the last chunk of a stream carries the token counts."""

    include_usage: bool = False


class _Asked(Closed):
    """What both kinds of request share."""

    model: str
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 1.0
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=_MOST_STOPS)] | None = None
    structured_outputs: StructuredOutputs | None = None
    user: Annotated[str, Field(max_length=200)] | None = None
    # Many programs send every setting they know of: what asks for nothing is obeyed by nothing.
    frequency_penalty: Annotated[float, Field(ge=0.0, le=0.0)] = 0.0
    presence_penalty: Annotated[float, Field(ge=0.0, le=0.0)] = 0.0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    logprobs: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """In this interface null is how a program says nothing about a setting."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def choices(self) -> tuple[str, ...]:
        """What the answer must be one of; empty if it is free."""
        return tuple(self.structured_outputs.choice) if self.structured_outputs else ()

    def written(self, answer: str) -> str:
        """A whole answer in the form that was asked for."""
        return answer

    @property
    def usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Asked):
    """The part of OpenAI's chat completion request that this service obeys."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=256)]
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[str], Field(max_length=0)] | None = None
    store: Literal[False] = False

    @property
    def limit(self) -> int:
        """Longest answer, in tokens."""
        return self.max_completion_tokens or self.max_tokens or 256

    @property
    def choices(self) -> tuple[str, ...]:
        """What the answer must be one of; empty if it is free."""
        if isinstance(self.response_format, JsonSchema):
            return self.response_format.json_schema.choice.labels
        return super().choices

    def written(self, answer: str) -> str:
        """A whole answer in the form that was asked for."""
        if isinstance(self.response_format, JsonSchema):
            return self.response_format.json_schema.choice.write(answer)
        return answer

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.structured_outputs and isinstance(self.response_format, JsonSchema):
            raise ValueError("two lists to choose from")
        return self


class CompletionRequest(_Asked):
    """The part of OpenAI's completion request that this service obeys."""

    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: Limit = 16
    echo: Literal[False] = False
    best_of: Literal[1] = 1

    @property
    def limit(self) -> int:
        """Longest answer, in tokens."""
        return self.max_tokens


UNUSED: Final = frozenset(
    {"frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "tools"}
    | {"store", "best_of", "echo"}
)
"""Settings that pass where they ask for nothing, and are not supported beyond that."""
# Names that an error may repeat: ours, those of feedback, and what other services take.
FIELDS: Final = frozenset(
    name
    for model in (
        ChatRequest,
        CompletionRequest,
        ChatMessage,
        TextPart,
        StreamOptions,
        StructuredOutputs,
        PlainText,
        JsonSchema,
        NamedSchema,
    )
    for name in model.model_fields
) | {
    "schema", "answer", "comment", "consented", "correction", "id", "person", "verdict",
    "audio", "functions", "function_call", "guided_choice", "metadata", "min_p", "modalities",
    "parallel_tool_calls", "prediction", "reasoning_effort", "repetition_penalty", "seed",
    "service_tier", "stop_token_ids", "suffix", "tool_choice", "top_k", "top_logprobs",
    "verbosity", "web_search_options",
}  # fmt: skip


def error(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An OpenAI error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def usage(prompt_tokens: int, tokens: int) -> dict[str, int]:
    """Token counts of an answer."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": prompt_tokens + tokens,
    }


class Envelope:
    """What every part of one answer has in common.

    Attributes:
        id: of the answer; feedback refers to it.
    """

    def __init__(self, model: str, *, chat: bool) -> None:
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._chat = chat
        self._head = {"id": self.id, "created": int(time.time()), "model": model}

    def whole(
        self,
        text: str,
        finish: Finish,
        counts: Mapping[str, int],
        record: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """An answer in one piece; `privity` holds its signed record, if there is one."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        kind = "chat.completion" if self._chat else "text_completion"
        more = {} if record is None else {"privity": dict(record)}
        return {**self._head, "object": kind, "choices": [choice], "usage": dict(counts), **more}

    def opening(self) -> str:
        """The event that opens a stream of a chat; a completion has none."""
        return self._event({"role": "assistant", "content": ""}) if self._chat else ""

    def piece(self, text: str) -> str:
        """The event for more text."""
        return self._event({"content": text} if self._chat else text)

    def closing(
        self,
        finish: Finish,
        counts: Mapping[str, int] | None,
        record: Mapping[str, Any] | None = None,
    ) -> str:
        """The events that close a stream; the counts if they were asked for."""
        more = {} if record is None else {"privity": dict(record)}
        events = self._event({} if self._chat else "", finish, more)
        if counts is not None:
            line = {**self._head, "object": self._kind, "choices": [], "usage": dict(counts)}
            events += f"data: {json.dumps(line)}\n\n"
        return f"{events}data: [DONE]\n\n"

    def broken(self) -> str:
        """The event that ends a stream whose answer failed."""
        body = {"message": "the model failed to answer", "type": "server_error", "param": None}
        return f"data: {json.dumps({'error': {**body, 'code': 'internal'}})}\n\n"

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _event(
        self,
        said: dict[str, str] | str,
        finish: Finish | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        choice["delta" if self._chat else "text"] = said
        line = {**self._head, "object": self._kind, "choices": [choice], **(more or {})}
        return f"data: {json.dumps(line)}\n\n"
