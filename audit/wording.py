"""Every sentence that a report may hold, as data; `audit.sentences` fills and checks them.

A sentence in braces takes a value of the record or recomputation that it refers to. Numbers and
names come from there; nothing here states a fact of its own about a run.
"""

from __future__ import annotations

from collections.abc import Mapping

# Recomputations that a sentence may refer to: what was done, by whom reads the report to be redone.
CHECKS: Mapping[str, str] = {
    "bytes": "Layer one of privity audit verify: signatures, hashes, roots and files of the bundle "
    "compared with what the parties signed.",
    "completeness": "Layer two of privity audit verify: gap-free numbers, every invited "
    "institution in every round, both sides' logs compared.",
    "meaning": "Layer three of privity audit verify: approvals, budgets, aggregates and release "
    "followed from entry to entry.",
    "epsilon": "The privacy loss recomputed from the reserved noise multiplier, sampling rate and "
    "steps of all of a cohort's runs, with the accountant of this software.",
    "search": "All entries of the bundle read and searched for the kind of event that the sentence "
    "names.",
    "count": "The entries of the kind that the sentence names, counted.",
    "release": "The files of the release folder hashed and compared with the digests in the "
    "coordinator's log.",
}

_SUMMARY = {
    "holds": "Every check of the verifier held over {entries} entries in {logs} logs.",
    "faulty": "The verifier found {count} faults, so no statement below may be relied on before "
    "each fault has been explained.",
    "not-judged": "Since bytes are damaged, completeness and meaning were not judged.",
    "fault": "Fault {code} in {where}: {sentence}.",
    "notice": "Notice: {sentence}.",
    "signed": "{name} signed its log of {size} entries with the key whose fingerprint is "
    "{fingerprint}; {pinned}.",
    "witnessed": "The last checkpoint of {name} was cosigned by {witnesses}.",
    "stamped": "A time-stamping authority under a root that was given to the verifier saw the "
    "first {size} entries of {name} on {time}.",
    "stamp-unchecked": "A time-stamp over the first {size} entries of {name} is in the bundle and "
    "was not checked, since no root was given to the verifier.",
    "unstamped": "No time-stamp of a third party is in the bundle; times are those of the parties' "
    "own clocks and of their witnesses.",
    "unwitnessed": "The last checkpoint of {name} was cosigned by nobody.",
}
_LEFT = {
    "form": "What an institution sends in a round of this run is one update of an adapter for the "
    "model {model}: {arrays} arrays of numbers ({method}, rank {rank}).",
    "left": "{site} sent {count} updates that the coordinator took, each named by its digest.",
    "left-nothing": "The coordinator took no update of {site}.",
    "gate": "The gate of {site} cleared {cleared} messages and held back {denied}.",
    "gate-denied": "In round {round} the gate of {site} let nothing out, with the code {code}.",
    "departures": "The log of {site} records no other departure of data; a departure by another "
    "way than this software would not be in it.",
    "received": "{site} received the release {digest}.",
}
_DECIDED = {
    "started": "{coordinator} started run {run} on {time}, invited {names}, and asked for at "
    "least {quorum} of them in each round.",
    "joined": "{coordinator} took {name} in as a member on {time}.",
    "revoked": "{coordinator} shut {name} out on {time}.",
    "approved-operator": "A person at {site} approved the plan {plan} on {time}.",
    "approved-policy": "The standing policy of {site} approved the plan {plan} on {time}.",
    "refused-operator": "A person at {site} refused the plan {plan} on {time}.",
    "refused-policy": "The standing policy of {site} refused the plan {plan} on {time}.",
    "undecided": "The log of {site} has no decision about this run.",
}
_CLAIMED = {
    "epsilon": "Everything that {site} sent, {scope}, comes to a privacy loss of at most "
    "ε = {epsilon} at δ = {delta} for one {unit} under {adjacency} adjacency, as recomputed for "
    "this report; the institution's own cap is {cap}.",
    "mechanism": "This follows from {steps} steps with noise multiplier {sigma}, sampling rate "
    "{rate} and clipping norm {clip}, which {site} fixed before the first round.",
    "no-epsilon": "The privacy loss of {site} could not be recomputed, so nothing is claimed "
    "about it.",
    "not-reserved": "{site} reserved no budget for this run.",
    "picture": "Recomputed privacy loss of {site} after each round, {scope}: from {first} to "
    "ε = {epsilon} at δ = {delta} for one {unit} under {adjacency} adjacency; the line is the cap "
    "of {cap}.",
    "stated": "The release states for {site}, {scope}, ε = {epsilon} at δ = {delta} for one {unit} "
    "under {adjacency} adjacency.",
}
_LIMITS = {
    "limit-signals": "The figures cover the updates; that an institution answered, with which "
    "fixed code, and when, carries no noise.",
    "limit-base": "The figures say nothing about what the model {model} was trained on before "
    "this run, nor about what a user types into it.",
    "limit-group": "The figures are about one {unit} at a time, not about facts of a group, nor "
    "about what the records of many share.",
    "limit-software": "The logs of {names} are evidence that the software {software} ran as they "
    "record; whether that is the software that ran is for each institution to answer.",
    "limit-scrub": "De-identification lowers what reaches the training at {site}; it does not find "
    "every identifier.",
    "limit-use": "The scores below are no validation for a decision about a person.",
    "limit-audit": "The audits of the software can refute the claimed privacy loss and cannot "
    "establish it.",
    "limit-mark": "A watermark that is not found says nothing about where an adapter comes from.",
    "limit-omitted": "What a party never wrote into its log cannot be seen here; the checks find "
    "gaps in what the parties wrote about each other.",
}
_DEIDENTIFIED = {
    "scrubbed": "{site} logged on {time} that its records went through de-identification with the "
    "profile {profile} of the scrubber {scrubber}.",
    "scrubbed-quiet": "What was found in the records of {site} is not in the log, since it would "
    "tell about the records; the log holds a salted commitment, {commitment}.",
    "not-scrubbed": "The log of {site} has no entry of a de-identification for this run.",
}
_UTILITY = {
    "scores": "{coordinator} scored the released adapter and the bare model on {records} records "
    "({data}).",
    "no-scores": "The log of {coordinator} has no evaluation of this run.",
}
_AUDIT = {
    "attacked": "{site} attacked the training software with made-up people on {time}, and the "
    "{effort} audit ended with the verdict {verdict}.",
    "twin": "Its twin run bounded the leak from below by {bound} with {correct} of {guesses} "
    "guesses right; a true-positive rate of {tpr} was measured where at most {ceiling} may occur.",
    "control": "The control, trained with noise multiplier {sigma}, was {verdict}.",
    "not-attacked": "The logs of this bundle have no audit of the software for this run.",
}
# What the categories of incidents mean; `audit.incidents` takes no other.
INCIDENTS: Mapping[str, str] = {
    "log-inconsistent": "another party's log was forked or rolled back",
    "ledger-fault": "the budget ledger was missing, damaged or older than its published heads",
    "clock-refused": "the clock was too far off to take part",
    "personal-data": "personal data may have reached somebody who should not have it",
    "unauthorised-access": "somebody used the system who may not",
    "key-compromise": "a key may be known to others",
    "malware": "foreign software ran on a machine of the system",
    "loss-or-theft": "a machine or a medium was lost",
    "wrong-output": "a released model answered wrongly where it mattered",
    "outage": "the system was not available when it was needed",
    "policy-breach": "a rule of the party was broken",
    "other": "it is in none of the other categories",
}
_CONDUCT = {
    "incident-open": "The log of {name} has an incident of severity {severity}, opened on {time} "
    "and not closed since: {meaning} (ticket: {reference}).",
    "incident-closed": "The log of {name} has an incident of severity {severity}, opened on {time} "
    "and closed on {end}: {meaning} (ticket: {reference}).",
    "served": "{site} served the release {digest} from {time} on (starts of its service: {count}).",
    "access": "Who was served is in the logs as salted commitments; this table has the sorts of "
    "access, how many requests an entry stands for, and how many entries there are.",
    "not-served": "No log of this bundle has an entry about serving a release.",
    "settings": "The {subject} settings of {name} changed before {time}, in {keys} (salted "
    "digests: from {before} to {after}).",
    "rotated": "{name} replaced its keys on {time}, with the reason {reason}.",
    "key-revoked": "{name} revoked a key on {time}, with the reason {reason}; beyond {size} "
    "entries it counts for nothing.",
    "erased": "{name} erased {count} values behind entries of its log on {time}, with the reason "
    "{reason}; the entries stay.",
    "retained": "On {time}, {name} erased what was older than {before}, when its term of "
    "{retention} ended: {values} values behind entries, {files} files and {rows} rows.",
    "no-conduct": "No log of this bundle has a change of settings or keys, or an erasure.",
}
_REST = {
    "incident": "In {log} on {time}: {problem}.",
    "no-incident": "No entry of the {entries} in this bundle reports a refusal, a rejection, an "
    "absence or a fault.",
    "rounds": "The run closed {rounds} rounds; in each, an institution's update was taken, "
    "rejected, or absent.",
    "ended": "{coordinator} ended the run on {time} as {outcome} after {rounds} rounds.",
    "not-ended": "The log of {coordinator} does not say that the run ended.",
    "released": "{coordinator} released the adapter {adapter} on {time}.",
    "follows": "It carries the watermark of its recipient over the aggregate {reference}, the last "
    "of the run.",
    "copies": "{coordinator} marked {count} copies, one for each of {names}, after it had "
    "committed to every mark.",
    "not-released": "The log of {coordinator} has no release of this run.",
    "files": "The release holds these files; the state says whether each is the one whose digest "
    "the log holds.",
    "rounds-shown": "The table shows the first {shown} of {rounds} rounds.",
}
_CONTROLS = {
    "controls": "This table maps what {source} asks for to entries of this bundle and to what "
    "they leave open; the source was read: {checked}; each line is to be confirmed by counsel and "
    "awards no verdict.",
}
TEMPLATES: Mapping[str, str] = {
    **_SUMMARY,
    **_LEFT,
    **_DECIDED,
    **_CLAIMED,
    **_LIMITS,
    **_DEIDENTIFIED,
    **_UTILITY,
    **_AUDIT,
    **_CONDUCT,
    **_REST,
    **_CONTROLS,
}
