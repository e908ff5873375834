"""What several packages' tests share: a tiny base model, and enrolled institutions with records."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tests.flow.world", "tests.flow.machine"]

TINY = "tiny-llama"
# Import-time warnings of libraries about each other; ours stay errors.
_FOREIGN_WARNINGS = (
    r"ignore:'click\.utils\.\w+' is deprecated and will be removed in Click 9:DeprecationWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in _FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PRIVITY_HOME that holds one pulled model: a Llama of two layers with random weights."""
    import torch
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from model import catalog

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    root = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>")])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            bos_token_id=256, eos_token_id=257, pad_token_id=None,
        )
    )  # fmt: skip
    model.save_pretrained(str(root / TINY))
    tokenizer.save_pretrained(str(root / TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVITY_HOME", str(root / "home"))
        catalog.pull(str(root / TINY))
    return root / "home"


@dataclass
class Federation:
    """A coordinator and its enrolled institutions, as folders; nothing runs."""

    root: Path
    coordinator: Any
    sites: dict[str, Any] = field(default_factory=dict)
    seeds: Iterator[int] = field(default_factory=itertools.count)

    def join(self, name: str, *, people: int = 8, **settings: str) -> Any:
        """Make an institution with made-up records, enrol it, and hand it its invitation."""
        from client import folder as clients
        from demo import generate
        from server import enrolment

        path = self.root / name
        clients.create(path, name=name, coordinator="127.0.0.1:8443")
        _, invitation = enrolment.enroll(self.coordinator, path / "enroll.json")
        (path / "invitation.json").write_bytes(invitation.read_bytes())
        persons = generate.persons("hospital", count=people, seed=next(self.seeds))
        generate.write_jsonl(path / "records.jsonl", persons, name)
        self.set(name, approve="policy", models=[TINY], **settings)
        return self.sites[name]

    def set(self, name: str, **settings: object) -> None:
        """Change keys of an institution's site.toml as its owner would, and open it again."""
        from client import folder as clients

        file = self.root / name / "site.toml"
        text = file.read_text()
        for key, value in settings.items():
            shown = f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')
            text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {shown} ", text, count=1)
            assert count, key
        file.write_text(text)
        self.sites[name] = clients.open_folder(self.root / name)

    def run_file(self, *, name: str = "triage", **changes: object) -> Path:
        """Write RUN.toml: two rounds of one noisy step with everybody, unless changed."""
        values: dict[str, object] = {
            "epsilon": 2.0, "rounds": 2, "steps_per_round": 1, "sample_rate": 0.5, "rank": 2,
            "quorum": 1, "join_timeout_s": 200.0, "round_timeout_s": 200.0,
            "institutions": sorted(self.sites), "evaluation": "", "method": "ffa-lora",
        }  # fmt: skip
        unknown = changes.keys() - values.keys()
        assert not unknown, unknown
        values |= changes
        text = f"""\
format = 1
name = "{name}"
[model]
name = "{TINY}"
[adapter]
method = "{values["method"]}"
rank = {values["rank"]}
[privacy]
epsilon = {values["epsilon"]}
sample_rate = {values["sample_rate"]}
rounds = {values["rounds"]}
steps_per_round = {values["steps_per_round"]}
[training]
max_tokens = 96
[federation]
institutions = {str(values["institutions"]).replace("'", '"')}
quorum = {values["quorum"]}
join_timeout_s = {values["join_timeout_s"]}
round_timeout_s = {values["round_timeout_s"]}
[evaluation]
path = "{values["evaluation"]}"
"""
        path = self.root / f"{name}.toml"
        path.write_text(text)
        return path


@pytest.fixture
def federation(
    tmp_path: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Federation]:
    """Make a federation of the named institutions in a temporary folder."""
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    return lambda names=("clinic-a", "clinic-b"): _federation(tmp_path, names)


def _federation(root: Path, names: Sequence[str]) -> Federation:
    from server import store

    made = Federation(
        root,
        store.create(
            root / "coordinator", name="hub", host="127.0.0.1", port=8443, control_port=8444
        ),
    )
    for name in names:
        made.join(name)
    return made


@pytest.fixture
def plain_scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass every text through unscrubbed: for tests of everything behind the scrub."""
    from client import people
    from privacy.scrub import Scrubbed

    class Plain:
        digest = "sha256:" + "5" * 64

        def scrub_many(self, texts: Sequence[str], persons: Sequence[str]) -> Iterator[Scrubbed]:
            del persons
            return (Scrubbed(text=text, spans=()) for text in texts)

    monkeypatch.setattr(people, "scrubber", lambda folder: Plain())
