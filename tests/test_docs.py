"""What the documents say about commands, files, folders and numbers is so."""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'click.utils.get_", category=DeprecationWarning)
    import privity
from configs.load import load
from configs.run import Run

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").glob("*.example.toml")]
)
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
DIRTY = re.compile(r"/home/|/root/|/tmp/|localhost:\d|#\d+\b|\bTODO\b|\bFIXME\b", re.IGNORECASE)
# What no claim may say without its numbers beside it.
STRONG = re.compile(r"\bdifferentially private\b", re.IGNORECASE)


def _code(text: str) -> Iterator[str]:
    """Every line of a code block, and every code span, without comments."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", rest):
        yield " ".join(span.replace("\n# ", " ").split())


def _commands(text: str) -> list[list[str]]:
    """Every `privity ...` that a document tells people to type, as words."""
    found = []
    for line in _code(text):
        for part in re.split(r"\bor: |; |&& ", line):
            if re.match(r"privity [a-z]", part.strip()):
                found.append(shlex.split(part.strip(), comments=True))
    return found


@cache
def _resolve(*words: str) -> click.Command:
    """The command that the leading words name; fails where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        command = privity._app(words)
    for word in words:
        assert isinstance(command, click.Group), f"privity {' '.join(words)}: no such command"
        assert word in command.commands, f"privity {' '.join(words)}: no such command"
        command = command.commands[word]
    return command


def _check(words: list[str]) -> None:
    """Walk the command's groups, then match flags and the number of arguments."""
    rest = words[1:]
    path: list[str] = []
    if rest[0] not in privity._COMMANDS:
        path.append(rest.pop(0))
        if not rest:  # a group by its name alone
            assert isinstance(_resolve(*path), click.Group)
            return
    path.append(rest.pop(0))
    command = _resolve(*path)
    flags = {flag: p for p in command.params for flag in p.opts if isinstance(p, click.Option)}
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    values = 0
    said = bool(rest)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            values += 1
            continue
        assert word in flags, f"{' '.join(words)}: privity {' '.join(path)} has no {word}"
        option = flags[word]
        assert isinstance(option, click.Option)
        if not option.is_flag:
            value = rest.pop(0) if rest else "--"
            assert not value.startswith("--"), f"{' '.join(words)}: {word} needs a value"
    if said and values:  # a bare `privity client run` in a sentence names the command only
        needed = sum(argument.required for argument in arguments)
        assert needed <= values <= len(arguments), f"{' '.join(words)}: takes {needed} arguments"


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_command_in_a_document_exists_with_its_flags(path: Path) -> None:
    for words in _commands(path.read_text(encoding="utf-8")):
        _check(words)


@pytest.mark.parametrize(
    "wrong",
    ["privity client fly DIR", "privity audit verify BUNDLE --hope", "privity serve", "privity fly",
     "privity server run DIR --run", "privity client approve DIR"],
)  # fmt: skip
def test_the_check_of_commands_can_fail(wrong: str) -> None:
    if wrong == "privity serve":
        _check(wrong.split())  # a name alone is fine
        return
    with pytest.raises(AssertionError):
        _check(wrong.split())


@pytest.mark.parametrize("name", [*privity._GROUPS, *privity._COMMANDS])
def test_no_paragraph_of_a_help_text_ends_a_line_where_its_source_does(name: str) -> None:
    seen = [privity._app((name,)).commands[name]]  # type: ignore[attr-defined]
    for command in seen:
        seen.extend(getattr(command, "commands", {}).values())
        assert "\n" not in (command.help or "").replace("\n\n", "")


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {
        tuple(word for word in words[1:3] if word.replace("-", "").isalpha())
        for words in _commands(text)
    }
    missing = set()
    for group in ("client", "server", "audit", "model"):
        command = _resolve(group)
        assert isinstance(command, click.Group)
        missing |= {(group, name) for name in command.commands} - named

    assert missing == {("model", "list")}  # what the README leaves to --help


def test_each_role_has_a_guide_of_commands() -> None:
    needed = {
        "guides/institution.md": {"init", "doctor", "prepare", "scrub", "plan", "run", "approve"},
        "guides/coordinator.md": {"init", "enroll", "start", "run", "release", "renew", "revoke"},
        "guides/operations.md": {"doctor", "show", "renew", "lock", "rotate", "revoke"},
        "officer.md": {"verify", "report", "serve", "officer", "sign-off", "export"},
    }
    for name, verbs in needed.items():
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        missing = verbs - {words[2] for words in _commands(text) if len(words) > 2}
        assert not missing, f"{name}: {missing}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_make_target_in_a_document_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for line in _code(path.read_text(encoding="utf-8")):
        named = re.match(r"\s*make ([a-z-]+)", line)
        assert named is None or named[1] in targets, f"make {named[1]}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_relative_link_and_every_named_file_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in target or (path.parent / target).exists(), target
    packages = "configs|privacy|model|audit|client|server|demo|tests|docs"
    for span in _code(text):
        if re.fullmatch(rf"(?:{packages})/[\w./-]+", span):
            assert (ROOT / span).exists(), span


def test_the_readmes_tree_names_exactly_the_top_level_folders() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    ignored = set(re.findall(r"^([\w-]+)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE))
    tree = set(re.findall(r"^(\w+)/ +\S", text, re.MULTILINE))
    there = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir()
        and not path.name.startswith((".", "__"))
        and not path.name.endswith(".egg-info")
        and path.name not in ignored
        and any(part.is_file() and "__pycache__" not in part.parts for part in path.rglob("*"))
    }

    assert tree == there


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_documents_speak_of_the_project_only(path: Path) -> None:
    found = DIRTY.search(path.read_text(encoding="utf-8"))

    assert found is None, found and found[0]


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_the_strong_word_stands_beside_unit_epsilon_delta_adjacency_and_scope(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for found in STRONG.finditer(text):
        paragraph = text[text.rfind("\n\n", 0, found.start()) : text.find("\n\n", found.end())]
        if "Never write" in paragraph:
            continue
        for needed in ("ε", "δ", "person", "zero", "run"):
            assert needed in paragraph, needed


def test_decisions_are_numbered_without_gap_and_titled_by_their_number() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [path.name[:4] for path in decisions] == [
        f"{number:04}" for number in range(1, len(decisions) + 1)
    ]
    for path in decisions:
        assert path.read_text(encoding="utf-8").startswith(f"# {path.name[:4]}. "), path.name


def test_the_readmes_bounds_on_guessing_are_those_of_the_example_run() -> None:
    from privacy.plan import Mechanism, attack_ceiling, find_noise

    wanted = load(ROOT / "configs" / "run.example.toml", Run).privacy
    steps = wanted.rounds * wanted.steps_per_round
    noise = find_noise(
        epsilon=wanted.epsilon, delta=wanted.delta, sample_rate=wanted.sample_rate, steps=steps
    )
    rows = [Mechanism(noise, wanted.sample_rate, steps)]
    # Right at even odds: half of one plus the largest gap between finds and false alarms.
    gap = attack_ceiling(rows, delta=wanted.delta, fpr=0.4) - 0.4
    even = math.ceil((1 + gap) / 2 * 1000) / 10
    rare = math.ceil(attack_ceiling(rows, delta=wanted.delta, fpr=0.01) * 1000) / 10
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())

    assert f"right in at most {even:g} of 100 cases" in text
    assert f"finds at most {rare:g} of 100 persons" in text
    assert f"{steps} steps" in text
