"""The model card: what a lawyer, a clinician and an engineer read before they use a release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from server.facts import Claim, ReleaseFacts, Scores

_NOT_CLAIMED = (
    "The claims cover the adapter updates that the institutions sent. Whether an institution "
    "answered, with which fixed word it declined or failed, and when, carries no noise.",
    "They say nothing about the base model's own training data, nor about text that a user types "
    "into the model.",
    "They protect each person's records, not facts about a group, nor an institution's secrets "
    "that many persons' records share.",
    "They rest on the institutions having run the software as their logs record; the logs are "
    "evidence of that, not a proof.",
    "The model is not fit for any clinical, credit or other decision about a person without "
    "validation by whoever uses it. The scores below are not such a validation.",
    "De-identification lowers what reaches the training; it does not find every identifier.",
)


def text(facts: ReleaseFacts, *, adapter_digest: str) -> str:
    """Write the card of a release: Hugging Face front matter, then Markdown.

    Args:
        facts: checked with `facts.check`.
        adapter_digest: digest of the adapter's arrays in this folder.

    Guarantees: every privacy claim stands in one sentence with its unit, ε, δ, adjacency and
        scope; what is absent (an evaluation, a watermark, an institution in a round) is said.
    """
    parts = (
        _front_matter(facts),
        f"# {facts.release}",
        _summary(facts),
        _section("Privacy claims", _claims(facts)),
        _section("What is not claimed", (f"- {line}" for line in _NOT_CLAIMED)),
        _section("Participation", _participation(facts)),
        _section("Data", _data(facts)),
        _section("Evaluation", _evaluation(facts)),
        *((_section("Empirical audits", _audits(facts)),) if facts.audits else ()),
        _section("Watermark", _watermark(facts)),
        _section("Load it", _load(facts)),
        _section("Verify it", _verify(facts, adapter_digest)),
        _section(
            "Plan", ("```json", json.dumps(dict(facts.plan), indent=2, sort_keys=True), "```")
        ),
    )
    return "\n\n".join(parts) + "\n"


def claim_sentence(claim: Claim, *, run: str) -> str:
    """State one claim completely, in one sentence."""
    return (
        f"Everything of the adapter that {claim.institution} sent, in run {run} and in all earlier "
        f"runs of the same cohort, over all rounds together, is (ε = {_up(claim.epsilon)}, "
        f"δ = {claim.delta:.3g})-differentially private for one {claim.unit} as the unit, with "
        f"{claim.adjacency} adjacency, under this institution's own cap of ε = {claim.cap:g}."
    )


def _front_matter(facts: ReleaseFacts) -> str:
    # JSON strings are YAML strings, so no name can break out of its field.
    lines = [
        "---",
        f"base_model: {json.dumps(facts.base_model)}",
        "base_model_relation: adapter",
        "library_name: peft",
        "pipeline_tag: text-generation",
        f"license: {json.dumps(facts.licence.lower())}",
        "tags:",
        "- lora",
        "- federated-learning",
        "- privity",
        "---",
    ]
    return "\n".join(lines)


def _summary(facts: ReleaseFacts) -> str:
    return (
        f"A LoRA adapter for `{facts.base_model}`, trained in run `{facts.run}` by "
        f"{_names(facts.contributors)} and released by {facts.coordinator} on "
        f"{facts.time.isoformat(timespec='minutes')}. Records stayed at the institutions; each "
        "sent adapter updates only. Licence of the adapter: "
        f"{facts.licence}; the base model has its own."
    )


def _claims(facts: ReleaseFacts) -> Iterator[str]:
    for claim in facts.claims:
        yield f"- {claim_sentence(claim, run=facts.run)}"
    yield ""
    yield (
        "ε is rounded up and computed with a privacy-loss-distribution accountant from the noise, "
        "sampling rate and number of steps in each institution's log; `privity audit verify` "
        "computes it again. Marking, signing and evaluating on other data cost no ε."
    )


def _participation(facts: ReleaseFacts) -> Iterator[str]:
    if facts.partial:
        yield (
            f"**Not every invited institution took part in every round.** Invited: "
            f"{_names(facts.institutions)}. Contributed: {_names(facts.contributors)}."
        )
    else:
        yield f"All invited institutions took part in every round: {_names(facts.institutions)}."
    yield ""
    yield "| round | accepted | rejected | absent |"
    yield "|---|---|---|---|"
    for part in facts.rounds:
        cells = (_names(names) for names in (part.accepted, part.rejected, part.absent))
        number = f"{part.round + 1}" if part.averaged else f"{part.round + 1} (not averaged)"
        yield f"| {number} | {' | '.join(cells)} |"
    if not all(part.averaged for part in facts.rounds):
        yield ""
        yield (
            "A round that was not averaged missed its quorum for good: the adapter stayed as it "
            "was, and what the round cost in ε stays spent."
        )


def _data(facts: ReleaseFacts) -> Iterator[str]:
    for heading, sentence in facts.data.items():
        yield f"- **{_plain(heading)}**: {_plain(sentence)}"
    if not facts.data:
        yield "The institutions published nothing about their data."


def _evaluation(facts: ReleaseFacts) -> Iterator[str]:
    scores = facts.evaluation
    if scores is None:
        yield "This release was not evaluated."
        return
    yield f"On {scores.records} records: {_plain(scores.data)}."
    yield ""
    yield f"| n = {scores.records} | accuracy | macro F1 | response loss |"
    yield "|---|---|---|---|"
    yield f"| base model | {_row(scores.base)} |"
    yield f"| this release | {_row(scores.released)} |"
    if facts.plan.get("training", {}).get("objective") == "label":
        yield ""
        yield (
            "Trained on the choice among the task's labels: this release is judged by the label it "
            "finds most probable among them, the base model by that or by calibrated likelihood, "
            "whichever suits it better. What it says of its own accord was not trained."
        )


def _audits(facts: ReleaseFacts) -> Iterator[str]:
    yield (
        "Before the release these institutions attacked the software on their own machines, with "
        "this plan's numbers, on made-up people. An audit can refute a claim and cannot establish "
        "one; it looks for faults in the software and says nothing of any record. ε is the plan's, "
        "for one person with zero-out adjacency."
    )
    yield ""
    yield (
        "| institution | verdict | claimed ε, δ | ε refuted up to | found at 1 % false positives "
        "| ceiling | µ of the step, expected | control |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for found in facts.audits:
        share, low, high = (100 * value for value in found.tpr)
        yield (
            f"| {_plain(found.institution)} | {_plain(found.verdict)} "
            f"| {_up(found.epsilon)}, {found.delta:.3g} "
            f"| {found.epsilon_bound:.3f} by {found.canaries} canaries "
            f"| {share:.1f} % ({low:.1f} to {high:.1f} %) | {100 * found.ceiling:.2f} % "
            f"| {found.mu_estimate:.4f}, {found.mu_expected:.4f} | {found.control_bound:.3f} |"
        )
    silent = [
        name for name in facts.institutions if name not in {a.institution for a in facts.audits}
    ]
    if silent:
        yield ""
        yield f"No audit of this plan is in the logs of: {_names(silent)}."


def _watermark(facts: ReleaseFacts) -> Iterator[str]:
    if facts.mark is None:
        yield "This release carries no watermark."
        return
    yield (
        f"Each recipient's copy carries a keyed mark of strength {facts.mark.strength:g} in the "
        "product of the adapter's factors. The keys were committed to in the coordinator's log "
        "before the release. Detection needs the suspect's weights and the key; a model distilled "
        "from this one no longer carries the mark."
    )
    yield ""
    yield "| recipient | commitment |"
    yield "|---|---|"
    for recipient, commitment in facts.mark.commitments.items():
        yield f"| {_plain(recipient)} | `{commitment}` |"


def _load(facts: ReleaseFacts) -> Iterator[str]:
    yield (
        "`FOLDER` is this folder. `BASE` is the base model's name on a hub, or its folder on this "
        f"machine: `privity model show {facts.base_model}` prints it."
    )
    yield ""
    yield "```python"
    yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield f"BASE, FOLDER = {json.dumps(facts.base_model)}, '.'"
    yield "tokenizer = AutoTokenizer.from_pretrained(BASE)"
    yield "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), FOLDER)"
    yield "chat = [{'role': 'user', 'content': 'Which desk handles a lost card?'}]"
    yield (
        "ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, "
        "return_tensors='pt', return_dict=True)"
    )
    yield "answer = model.generate(**ids, max_new_tokens=64)"
    yield "print(tokenizer.decode(answer[0], skip_special_tokens=True))"
    yield "```"


def _verify(facts: ReleaseFacts, adapter_digest: str) -> Iterator[str]:
    yield "With the coordinator's release key, obtained over another channel than this folder:"
    yield ""
    yield "```sh"
    yield "model_signing verify key . --signature model.sig --public_key release.pub"
    yield "```"
    yield ""
    yield f"- adapter arrays: `{adapter_digest}`"
    yield f"- base model files: `{facts.base_digest}`"
    yield f"- plan: `{facts.plan_digest}`"
    yield ""
    yield "The run's logs are verified with `privity audit verify BUNDLE`."


def _section(title: str, lines: Iterable[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)


def _names(names: Iterable[str]) -> str:
    return ", ".join(_plain(name) for name in names) or "none"


def _row(scores: Scores) -> str:
    return f"{scores.accuracy:.3f} | {scores.macro_f1:.3f} | {scores.loss:.3f}"


def _up(epsilon: float) -> str:
    """Round up to three decimals: a printed ε is never below the computed one."""
    shown = round(epsilon, 3)
    return f"{shown if shown >= epsilon else shown + 0.001:.3f}"


def _plain(words: str) -> str:
    """Keep a name or a sentence inside its table cell or list item."""
    return " ".join(words.replace("|", "/").replace("<", "(").replace(">", ")").split())
