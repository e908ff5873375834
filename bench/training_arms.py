"""The arms of the training benchmark: six ways to train an adapter on the same records.

Each is a function that loads the model and returns a `Turn`: called with the records of a turn, it
trains on every one of them once and returns the seconds that took, loading and set-up left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.prompts import Example

ALPHA = 16
RANK = 8
LEARNING_RATE = 1e-3
SMALL_BATCH = 8  # of transformers' Trainer by default, and physical in Opacus' tutorial on text


@dataclass(frozen=True)
class Task:
    """What all arms of a comparison share.

    Attributes:
        model: name in the catalogue, or path of a model folder.
        matrices: last names of the modules that carry the adapter.
        records: how many there are in a turn.
        max_tokens: of the longest record.
        chunk_tokens: padded tokens in one of our passes.
    """

    model: str
    matrices: tuple[str, ...]
    records: int
    max_tokens: int
    chunk_tokens: int


@dataclass
class Taken:
    """Seconds of a turn, and how many of them went into drawing the mechanism's noise."""

    seconds: float
    noise: float = 0.0


Turn = Callable[[Sequence[Example]], Taken]


class Rows(torch.utils.data.Dataset):
    """The records of the present turn as transformers' collators take them."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Opacus looks at a record before there is a turn.
        self.examples: Sequence[Example] = (Example(ids=(0, 0), prompt_tokens=1),)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        example = self.examples[index]
        labels = [-100] * example.prompt_tokens + list(example.ids[example.prompt_tokens :])
        return {
            "input_ids": list(example.ids),
            "attention_mask": [1] * example.tokens,
            "labels": labels,
        }


def opacus(task: Task) -> Turn:
    """(a) Opacus as its tutorial on text shows it: every record padded to a fixed length."""
    return _opacus(task, fixed=task.max_tokens)


def opacus_short(task: Task) -> Turn:
    """(f) The same, with batches padded to their longest record only."""
    return _opacus(task, fixed=None)


def _opacus(task: Task, *, fixed: int | None) -> Turn:
    from opacus import PrivacyEngine
    from opacus.utils.batch_memory_manager import BatchMemoryManager

    model, tokenizer = _peft(task)
    rows = Rows(task.records)
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    model, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.AdamW(weights, lr=LEARNING_RATE),
        # One logical batch a turn, so that Poisson sampling takes everyone.
        data_loader=torch.utils.data.DataLoader(
            rows, batch_size=task.records, collate_fn=_collator(tokenizer, fixed=fixed)
        ),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )

    def turn(examples: Sequence[Example]) -> Taken:
        rows.examples = examples
        began = time.perf_counter()
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=SMALL_BATCH, optimizer=optimizer
        ) as safe_loader:
            for batch in safe_loader:
                optimizer.zero_grad()
                model(**batch).loss.backward()
                optimizer.step()
        return Taken(time.perf_counter() - began)

    return turn


def trainer(task: Task) -> Turn:
    """(b) PEFT with transformers' Trainer as its documentation shows it; not private."""
    return _trainer(task, bf16=False)


def trainer_bf16(task: Task) -> Turn:
    """(e) The same with bf16=True; not private."""
    return _trainer(task, bf16=True)


def _trainer(task: Task, *, bf16: bool) -> Turn:
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        """Times the loop alone; what `train` prepares is not counted."""

        began = ended = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.ended = time.perf_counter()

    model, tokenizer = _peft(task)
    rows, clock = Rows(task.records), Clock()
    folder = tempfile.TemporaryDirectory(prefix="privity-bench-")  # gone with the process
    arguments = TrainingArguments(
        output_dir=folder.name,
        per_device_train_batch_size=SMALL_BATCH,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        bf16=bf16,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    loop = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=_collator(tokenizer),
        callbacks=[clock],
    )
    loop.remove_callback(PrinterCallback)

    def turn(examples: Sequence[Example]) -> Taken:
        rows.examples = examples
        loop.train()
        return Taken(clock.ended - clock.began)

    return turn


def private(task: Task) -> Turn:
    """(c) Ours: the function that an institution's round calls, one step over everyone.

    Its first call also checks the machine's arithmetic, once a process; the benchmark's first turn
    is not counted.
    """
    import client.train
    from model import adapter
    from privacy import dpsgd  # noqa: F401 - imported at the first use otherwise, and counted
    from privacy.csprng import Csprng

    class Timed(Csprng):
        spent = 0.0

        def normal(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return super().normal(*args, **kwargs)
            finally:
                Timed.spent += time.perf_counter() - began

    client.train.Csprng = Timed  # type: ignore[misc]
    base, model = _ours(task)
    plan = _plan(task, base, model)
    state: Any = None

    def turn(examples: Sequence[Example]) -> Taken:
        nonlocal state
        people = [(example,) for example in examples]
        start = adapter.read(model)
        Timed.spent = 0.0
        began = time.perf_counter()
        trained = client.train.train(
            model, people, start, plan, chunk_tokens=task.chunk_tokens, state=state
        )
        seconds = time.perf_counter() - began
        state = trained.state
        return Taken(seconds, Timed.spent)

    return turn


def plain(task: Task) -> Turn:
    """(d) Ours without privacy: the same adapter, loss and passes, ordinary gradients.

    No hooks, no gradient of each person, no clipping and no noise: what is left of (c) is what any
    training has to do.
    """
    from model import prompts
    from privacy import trainable

    _, model = _ours(task)
    weights = list(trainable.find(model).values())
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)

    def turn(examples: Sequence[Example]) -> Taken:
        began = time.perf_counter()
        split = trainable.chunks(examples, size=lambda e: e.tokens, limit=task.chunk_tokens)
        for chunk in split:
            (prompts.loss(model, chunk.examples, chunk.width).sum() / len(examples)).backward()
        optimizer.step()
        optimizer.zero_grad()
        return Taken(time.perf_counter() - began)

    return turn


ARMS: dict[str, tuple[str, Callable[[Task], Turn]]] = {
    "a": ("Opacus, private", opacus),
    "b": ("Trainer", trainer),
    "c": ("ours, private", private),
    "d": ("ours, no clip, no noise", plain),
    "e": ("Trainer, bf16", trainer_bf16),
    "f": ("Opacus, less padding", opacus_short),
}


def _peft(task: Task) -> tuple[Any, Any]:
    """Model and tokenizer with an adapter as PEFT's documentation puts it on."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from model import catalog

    path = str(catalog.find(task.model).path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=list(task.matrices),
        lora_dropout=0.0,
    )
    return get_peft_model(model, config), AutoTokenizer.from_pretrained(path)


def _collator(tokenizer: Any, *, fixed: int | None = None) -> Any:
    """Pads a batch to its longest record or to a fixed length, labels with -100."""
    from transformers import DataCollatorForSeq2Seq

    if fixed is None:
        return DataCollatorForSeq2Seq(tokenizer, padding=True)
    return DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=fixed)


def _ours(task: Task) -> tuple[Any, Any]:
    from model import adapter, catalog
    from model import base as base_model
    from model.shapes import Spec

    base = base_model.load(catalog.find(task.model), precision="auto")
    spec = Spec(rank=RANK, alpha=ALPHA, targets=task.matrices, seed="privity/ffa-lora/1")
    return base, adapter.attach(base, spec)


def _plan(task: Task, base: Any, model: Any) -> Any:
    from configs.run import AdapterTable, Plan, TaskTable, TrainingTable
    from model import adapter

    return Plan(
        run="bench",
        model=base.folder.name,
        model_digest=base.folder.digest,
        adapter=AdapterTable(rank=RANK, alpha=ALPHA, targets=task.matrices),
        frozen_digest=adapter.frozen_digest(model),
        epsilon=2.0,
        delta=1e-5,
        noise_multiplier=1.0,
        clip_norm=1.0,
        sample_rate=1.0,
        rounds=1,
        steps_per_round=1,
        training=TrainingTable(learning_rate=LEARNING_RATE, max_tokens=task.max_tokens),
        task=TaskTable(),
        institutions=("bench",),
        quorum=1,
        round_timeout_s=900.0,
    )
