"""The properties that private training rests on, and where each is tested.

Every file is in this folder unless its path says otherwise. Distances are 2-norms over all weights.

 1  one person moves a step's sum by at most C: also one who is 50 times longer, there twice,
    without labels, all padding
        test_removing_a_person_moves_the_clipped_sum_by_at_most_c,
        test_removing_a_person_at_a_site_moves_the_sum_by_at_most_c,
        test_clipping_is_over_all_layers_together_and_one_person_at_a_time,
        test_a_clipped_person_reaches_c_but_for_the_allowance_for_rounding,
        test_a_loss_that_looks_at_batch_mates_would_move_it_by_more
 2  a person's gradient does not depend on batch mates or padding, and is float32
        test_a_persons_contribution_does_not_depend_on_their_batch_mates,
        test_each_persons_part_of_a_sites_sum_is_theirs_alone,
        test_an_examples_loss_depends_neither_on_its_padding_nor_on_the_others,
        test_autocast_is_refused
 3  nor on the physical batch
        test_the_physical_batch_size_does_not_change_the_sum,
        test_taking_one_person_away_changes_the_shape_of_one_pass_at_most
 4  noise has the planned scale, is normal, independent and never repeats
        test_noise_on_the_weights_has_the_promised_scale, test_noise_on_the_weights_is_normal,
        test_noise_is_independent_over_layers_steps_and_calls,
        test_noise_reaches_every_layer_of_every_step,
        test_noise_keeps_the_precision_of_its_draw_and_never_repeats,
        test_sum_and_noise_are_added_before_either_is_rounded,
        test_noise_does_not_repeat_or_correlate_within_or_between_streams
 5  no seed reaches noise, sample or choice of a note
        test_global_seeds_reproduce_neither_noise_nor_batches_nor_notes,
        test_no_seed_leads_to_sampling_noise_or_the_choice_of_a_note,
        test_the_source_of_randomness_takes_nothing_that_could_be_a_seed,
        test_key_and_counter_come_from_the_operating_system
 6  an empty sample is one noisy, accounted step, also the first
        test_every_step_adds_noise_once_also_when_nobody_is_sampled,
        test_a_run_in_which_nobody_is_ever_sampled_completes
 7  draws of noise = charged steps = the plan's; after a failure, a resumption, a broken person, a
    kill: at most
        test_draws_of_noise_equal_the_steps_that_are_accounted,
        test_what_a_site_draws_is_what_its_plan_ledger_and_log_say_and_what_it_sends,
        test_a_site_that_is_killed_in_a_round_has_been_charged_for_what_it_drew,
        test_a_site_charges_plan_and_round_before_it_opens_a_record_and_never_gives_back
 8  a gradient that is not finite contributes nothing and changes nobody else's
        test_a_person_without_a_finite_gradient_contributes_nothing
 9  Poisson sampling: everybody alike, independently, in no turns
        test_everybody_is_sampled_alike, test_people_are_sampled_independently_of_each_other,
        test_being_sampled_says_nothing_about_the_next_steps,
        test_poisson_sampling_includes_everybody_alike_and_independently
10  one q, n and divisor everywhere
        test_the_sampler_is_asked_for_the_plans_rate_over_all_people,
        test_a_step_is_divided_by_the_expected_not_the_true_number,
        test_a_site_trains_with_the_numbers_of_its_plan,
        test_the_sampler_that_is_accounted_for_is_the_one_in_use
11  only B trains; what cannot be told per person is refused
        test_only_the_adapters_b_changes,
        test_a_model_whose_people_cannot_be_told_apart_is_refused,
        test_people_that_are_not_in_the_first_dimension_are_refused
12  ε: two accountants agree, everything composes, it grows, the cap holds, no looser accountant
    is in reach
        test_a_second_accountant_agrees_within_two_hundredths,
        test_one_ledger_composes_rounds_runs_and_different_plans,
        test_epsilon_grows_with_steps_and_rate_and_shrinks_with_noise_and_delta,
        test_rounds_accumulate_until_the_institution_refuses,
        test_no_looser_accountant_is_within_reach_of_a_claim,
        test_the_claim_does_not_move_with_the_bound_that_only_saves_time
13  the ledger is durable, chained, serial, and never goes down
        test_a_charge_is_on_the_disk_before_the_call_returns,
        test_charges_by_several_processes_at_once_all_stand,
        test_a_kill_at_any_moment_leaves_at_least_what_was_acknowledged,
        test_an_edited_ledger_is_refused,
        test_an_entry_that_was_taken_out_and_the_rest_renumbered_is_missed,
        test_reopening_does_not_lower_epsilon
14  of what leaves, fields and sizes are listed and do not depend on the data
        test_only_listed_fields_of_fixed_sizes_leave_whatever_the_data_are,
        test_an_answer_has_no_field_beside_the_listed_ones
15  as many messages whatever the data; failures are fixed words
        test_only_listed_fields_of_fixed_sizes_leave_whatever_the_data_are,
        test_every_fault_leaves_as_a_fixed_word, test_an_errors_text_becomes_a_fixed_word
16  one loss a person, never a library's batch mean
        test_a_loss_of_another_shape_than_one_a_person_is_refused,
        test_the_librarys_own_loss_is_not_used
17  what is released is the sum of the recorded noisy steps
        test_the_weights_are_the_sum_of_the_recorded_noisy_steps,
        test_what_a_site_draws_is_what_its_plan_ledger_and_log_say_and_what_it_sends
18  breaking any of this turns a test red
        test_every_mutant_is_killed
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def _written() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")]
    return {
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }


def test_every_property_has_tests_and_every_test_in_the_table_exists() -> None:
    numbers = [int(found) for found in re.findall(r"^ ?(\d+)  \w", __doc__ or "", re.MULTILINE)]
    assert numbers == list(range(1, 19))
    written = _written()
    for part in re.split(r"^ ?\d+  ", __doc__ or "", flags=re.MULTILINE)[1:]:
        named = set(re.findall(r"test_\w+", part))
        assert named, part
        assert named <= written, named - written
