"""Mutants of ε, of the ledger, and of what a site charges and sends."""

from __future__ import annotations

from mutant import Mutant, accounting, charges, named, sensitivity

_PLAN, _LEDGER, _SITE = "privacy/plan.py", "privacy/ledger.py", "client/train.py"
_PLANNED = sensitivity("a_site_trains_with_the_numbers_of_its_plan")

ACCOUNTS = (
    Mutant(
        "only the last plan is composed",
        _PLAN,
        "return _epsilon(_merged(rows), float(delta), _INTERVAL)",
        "return _epsilon(_merged(rows[-1:]), float(delta), _INTERVAL)",
        accounting("one_ledger_composes_rounds_runs_and_different_plans"),
    ),
    Mutant(
        "every run starts a new account",
        _LEDGER,
        "after = epsilon([*(row.mechanism for row in rows), mechanism], delta=delta)",
        "after = epsilon([mechanism], delta=delta)",
        accounting("one_ledger_composes_rounds_runs_and_different_plans"),
    ),
    Mutant(
        "one step is charged",
        _PLAN,
        "return dp_accounting.SelfComposedDpEvent(step, steps)",
        "return dp_accounting.SelfComposedDpEvent(step, 1)",
        accounting("a_second_accountant_agrees_within_two_hundredths"),
    ),
    Mutant(
        "half the sample rate is charged",
        _PLAN,
        "step = dp_accounting.PoissonSampledDpEvent(rate, gaussian)",
        "step = dp_accounting.PoissonSampledDpEvent(rate / 2, gaussian)",
        accounting("a_second_accountant_agrees_within_two_hundredths"),
    ),
    Mutant(
        "a Renyi bound is claimed",
        _PLAN,
        "return max(0.0, float(_accountant(rows, interval).get_epsilon(delta)))",
        "return _renyi_bound(rows, delta)",
        accounting("the_claim_does_not_move_with_the_bound_that_only_saves_time"),
    ),
    Mutant(
        "a central limit is claimed",
        _PLAN,
        "return max(0.0, float(_accountant(rows, interval).get_epsilon(delta)))",
        "mu = math.sqrt(sum(t * q * q * math.expm1(s**-2) for s, q, t in rows))\n"
        "    gaussian = ((1.0 / mu, 1.0, 1),)\n"
        "    return max(0.0, float(_accountant(gaussian, interval).get_epsilon(delta)))",
        accounting("a_second_accountant_agrees_within_two_hundredths"),
    ),
    Mutant(
        "the noise is rounded down",
        _PLAN,
        "return _refine(lambda grid: excess(grid, _INTERVAL), low, high) / _GRID",
        "return (_refine(lambda grid: excess(grid, _INTERVAL), low, high) - 1) / _GRID",
        named("privacy/test_plan", "found_noise_is_the_smallest_that_keeps_the_target"),
    ),
    Mutant(
        "noise that is no number",
        _PLAN,
        "if not 0.0 < self.noise_multiplier < math.inf:",
        "if self.noise_multiplier <= 0.0 or self.noise_multiplier == math.inf:",
        named("privacy/test_plan", "impossible_mechanisms_are_refused"),
    ),
    Mutant(
        "the cap is not enforced",
        _LEDGER,
        "            if not after <= cap:\n                raise BudgetExhausted(",
        "            if not before <= cap:\n                raise BudgetExhausted(",
        named("privacy/test_ledger", "a_reservation_over_the_cap_is_refused_and_charges_nothing"),
    ),
    Mutant(
        "a round begins twice",
        _LEDGER,
        "if round in _begun(entries, run):",
        "if round in _begun(entries, f'{run}?'):",
        named("privacy/test_ledger", "a_round_begins_once_and_is_never_refunded"),
    ),
    Mutant(
        "a reserved plan may change",
        _LEDGER,
        "if entry.body[key] != value:",
        'if key == "cohort" and entry.body[key] != value:',
        named("privacy/test_ledger", "a_reserved_run_cannot_change_its_plan"),
    ),
    Mutant(
        "begun rounds are forgotten",
        _LEDGER,
        "rounds_begun=len(_begun(entries, entry.body[\"run\"])),",
        "rounds_begun=min(1, len(_begun(entries, entry.body[\"run\"]))),",
        named("privacy/test_ledger", "the_balance_says_what_is_spent_reserved_and_left"),
    ),
    Mutant(
        "an older copy is taken",
        _LEDGER,
        "if head not in known:",
        "if len(known) == 1 and head not in known:",
        named("privacy/test_ledger", "a_restored_older_copy_lacks_the_published_head"),
    ),
    Mutant(
        "the chain is none",
        "privacy/chain.py",
        'digest = _digest(f"{previous}\\n{text}".encode())',
        'digest = _digest(f"{GENESIS}\\n{text}".encode())',
        named("privacy/test_ledger",
            "an_entry_that_was_taken_out_and_the_rest_renumbered_is_missed"),
    ),
    Mutant(
        "a charge can be removed",
        "privacy/journal.py",
        "BEFORE DELETE ON entry\n    BEGIN SELECT RAISE(ABORT, 'the ledger only grows');",
        "BEFORE DELETE ON entry\n    BEGIN SELECT 'the ledger may shrink';",
        named("privacy/test_ledger", "the_file_itself_refuses_changes_and_removals"),
    ),
    Mutant(
        "charges are not synced to the disk",
        "privacy/journal.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        accounting("a_charge_is_on_the_disk_before_the_call_returns"),
    ),
    Mutant(
        "writers do not exclude each other",
        "privacy/journal.py",
        'connection.execute("BEGIN IMMEDIATE")',
        'connection.execute("BEGIN DEFERRED")',
        named("privacy/test_ledger", "competing_reservations_never_pass_the_cap_together"),
    ),
)  # fmt: skip

BORDER = (
    Mutant(
        "charged after training",
        "client/tasks.py",
        "        head = self._charge(plan, digest, header, log)\n",
        "",
        charges("a_site_charges_plan_and_round_before_it_opens_a_record_and_never_gives_back"),
        also=(
            "        cleared = clear(\n",
            "        head = self._charge(plan, digest, header, log)\n        cleared = clear(\n",
        ),
    ),
    Mutant(
        "a site halves the noise",
        _SITE,
        "noise_multiplier=plan.noise_multiplier,",
        "noise_multiplier=plan.noise_multiplier / 2,",
        _PLANNED,
    ),
    Mutant(
        "a site samples at another rate",
        _SITE,
        "sample_rate=plan.sample_rate,",
        "sample_rate=min(1.0, 2 * plan.sample_rate),",
        _PLANNED,
    ),
    Mutant(
        "a site takes all steps in every round",
        _SITE,
        "steps=plan.steps_per_round,",
        "steps=plan.steps,",
        _PLANNED,
    ),
    Mutant(
        "a record counts as a person",
        "client/people.py",
        "people[note.person].append(example)",
        'people[f"{note.person} {len(people)}"] = [example]',
        named("client/test_people", "a_person_is_one_item_however_many_notes"),
    ),
    Mutant(
        "a count crosses the border",
        "privacy/wire.py",
        "    statement_index: _Count\n",
        "    statement_index: _Count\n    people: _Count = 0\n",
        named("privacy/test_properties_wire", "an_answer_has_no_field_beside_the_listed_ones"),
    ),
    Mutant(
        "a header has free bytes",
        "privacy/wire.py",
        "if _encode(header) != message.header:",
        "if not _encode(header):",
        named("privacy/test_wire", "no_other_spelling_of_a_header_passes"),
    ),
    Mutant(
        "any array passes the gate",
        "privacy/egress.py",
        "if not shapes or arrays.keys() != shapes.keys():",
        "if not shapes or not arrays.keys() >= shapes.keys():",
        named("privacy/test_egress", "anything_else_is_denied"),
    ),
    Mutant(
        "a limit that is no number holds nothing back",
        "privacy/egress.py",
        "if not norm <= max_norm:",
        "if norm > max_norm:",
        named("privacy/test_egress", "a_limit_that_is_no_number_denies"),
    ),
    Mutant(
        "an exception's text crosses the border",
        "client/runner.py",
        "return Error(code=_CODES[word], reason=word)",
        "return Error(code=_CODES[word], reason=str(fault))",
        named("client/test_runner", "every_fault_leaves_as_a_fixed_word"),
    ),
)
