"""Mutants of clipping, summing, noising and of the loss."""

from __future__ import annotations

from mutant import Mutant, charges, named, noise, sensitivity

_DPSGD, _PROMPTS, _TRAINABLE = "privacy/dpsgd.py", "model/prompts.py", "privacy/trainable.py"
_SAMPLED = "sampled = randomness.poisson_sample(len(people), settings.sample_rate)"

MECHANISM = (
    Mutant(
        "clip skipped",
        _DPSGD,
        "factors = torch.where(finite, bound / over, 0.0)",
        "factors = finite.double()",
        sensitivity("removing_a_person_moves_the_clipped_sum_by_at_most_c"),
    ),
    Mutant(
        "clip of each layer apart",
        _DPSGD,
        "total = (factors @ clean).view_as(weight)",
        "own = bound / clean.norm(dim=1).clamp(min=bound)\n"
        "            total = (own @ clean).view_as(weight)",
        sensitivity("clipping_is_over_all_layers_together_and_one_person_at_a_time"),
    ),
    Mutant(
        "clip after averaging",
        _DPSGD,
        "factors = torch.where(finite, bound / over, 0.0)",
        "joint = torch.cat([grad.double().sum(0).flatten() for grad in grads]).norm()\n"
        "        factors = torch.where(finite, bound / joint.clamp(min=bound), 0.0)",
        sensitivity("the_physical_batch_size_does_not_change_the_sum"),
    ),
    Mutant(
        "no room for rounding",
        _DPSGD,
        "bound = (1.0 - ALLOWANCE) * self.max_grad_norm",
        "bound = self.max_grad_norm",
        sensitivity("a_clipped_person_reaches_c_but_for_the_allowance_for_rounding"),
    ),
    Mutant(
        "automatic clipping without norm",
        _DPSGD,
        'norms + FLOOR if self.clipping == "auto"',
        'torch.full_like(norms, FLOOR) if self.clipping == "auto"',
        sensitivity("removing_a_person_moves_the_clipped_sum_by_at_most_c"),
    ),
    Mutant(
        "a broken gradient gets through",
        _DPSGD,
        "finite = torch.isfinite(norms)",
        "finite = torch.ones_like(norms, dtype=torch.bool)",
        sensitivity("a_person_without_a_finite_gradient_contributes_nothing"),
    ),
    Mutant(
        "a broken gradient times zero",
        _DPSGD,
        "clean.masked_fill_(spoilt, 0.0)",
        "pass",
        sensitivity("a_person_without_a_finite_gradient_contributes_nothing"),
    ),
    Mutant(
        "a batch is used twice",
        _DPSGD,
        "for index in sampled if",
        "for index in [*sampled, *sampled] if",
        sensitivity("a_clipped_person_reaches_c_but_for_the_allowance_for_rounding"),
    ),
    Mutant(
        "chunks overlap",
        _TRAINABLE,
        "members[start : start + rows(wide, limit=limit)]",
        "members[max(0, start - 1) : start + rows(wide, limit=limit)]",
        sensitivity("the_physical_batch_size_does_not_change_the_sum"),
    ),
    Mutant(
        "noise halved by its caller",
        _DPSGD,
        "std = self.noise_multiplier * self.max_grad_norm",
        "std = self.noise_multiplier * self.max_grad_norm / 2",
        noise("noise_on_the_weights_has_the_promised_scale"),
    ),
    Mutant(
        "noise not scaled by C",
        _DPSGD,
        "std = self.noise_multiplier * self.max_grad_norm",
        "std = self.noise_multiplier",
        noise("noise_on_the_weights_has_the_promised_scale"),
    ),
    Mutant(
        "noise on one layer only",
        _DPSGD,
        "self.randomness.normal(tuple(weight.shape), std)",
        "self.randomness.normal(tuple(weight.shape), std * (weight is self.params[0]))",
        noise("noise_reaches_every_layer_of_every_step"),
    ),
    Mutant(
        "the same noise for every layer",
        _DPSGD,
        "noise = torch.from_numpy(self.randomness.normal(tuple(weight.shape), std))",
        "if weight is self.params[0]:\n"
        "                row = self.randomness.normal((9999,), std)\n"
        "            noise = torch.from_numpy(row[: weight.numel()].reshape(weight.shape).copy())",
        noise("noise_is_independent_over_layers_steps_and_calls"),
    ),
    Mutant(
        "noise in float32",
        _DPSGD,
        "noised = weight.summed_grad + noise.to(weight.device)",
        "noised = weight.summed_grad.float() + noise.float()",
        noise("sum_and_noise_are_added_before_either_is_rounded"),
    ),
    Mutant(
        "noise for each chunk",
        _DPSGD,
        "do_skip=place < len(split) - 1",
        "do_skip=False",
        noise("every_step_adds_noise_once_also_when_nobody_is_sampled"),
    ),
    Mutant(
        "empty steps dropped",
        _TRAINABLE,
        "return split or [Chunk((), width(0))]",
        "return split",
        noise("every_step_adds_noise_once_also_when_nobody_is_sampled"),
    ),
    Mutant(
        "somebody stands in on an empty step",
        _DPSGD,
        "for index in sampled if",
        "for index in (sampled if len(sampled) else [0]) if",
        noise("every_step_adds_noise_once_also_when_nobody_is_sampled"),
    ),
    Mutant(
        "divided by the true number",
        _DPSGD,
        _SAMPLED,
        f"{_SAMPLED}\n            optimizer.expected_batch_size = max(1, len(sampled))",
        noise("a_step_is_divided_by_the_expected_not_the_true_number"),
    ),
    Mutant(
        "one step more than planned",
        _DPSGD,
        "for done in range(settings.steps):",
        "for done in range(settings.steps + 1):",
        charges("draws_of_noise_equal_the_steps_that_are_accounted"),
    ),
    Mutant(
        "an un-noised gradient beside the step",
        _DPSGD,
        "            if on_step is not None:",
        "            next(iter(weights.values())).data.mul_(1.0 + 1e-3 * len(sampled))\n"
        "            if on_step is not None:",
        charges("the_weights_are_the_sum_of_the_recorded_noisy_steps"),
    ),
    Mutant(
        "a trainable parameter without noise",
        _TRAINABLE,
        "        if name not in weights or weights[name] is not weight:\n            raise",
        "        if name not in weights:\n            continue\n"
        "        if weights[name] is not weight:\n            raise",
        named("privacy/test_trainable", "a_model_whose_people_cannot_be_told_apart_is_refused"),
        also=(
            "    return found\n",
            "    return {n: w for n, w in found.items() if n in weights}\n",
        ),
    ),
    Mutant(
        "batch normalisation allowed",
        _TRAINABLE,
        "if isinstance(module, nn.modules.batchnorm._BatchNorm):",
        "if isinstance(module, nn.modules.batchnorm.SyncBatchNorm):",
        named("privacy/test_trainable", "a_model_whose_people_cannot_be_told_apart_is_refused"),
    ),
    Mutant(
        "all passes as wide as the longest",
        _TRAINABLE,
        "classes.setdefault(width(size(example)), [])",
        "classes.setdefault(width(max(map(size, examples))), [])",
        sensitivity("taking_one_person_away_changes_the_shape_of_one_pass_at_most"),
    ),
    Mutant(
        "the machine's rounding is not looked at",
        "client/train.py",
        "    arithmetic.check(found, people=people)\n",
        "",
        sensitivity("a_machine_that_rounds_people_together_trains_nobody"),
    ),
    Mutant(
        "the file's order decides who is scrubbed together",
        "client/people.py",
        "_by_person(reading.records), person=",
        "list(reading.records), person=",
        named("client/test_people", "nobodys_notes_depend_on_whose_records_stand_beside_them"),
    ),
    Mutant(
        "gradients in half precision",
        _DPSGD,
        "            and grad.dtype == torch.float32\n",
        "",
        named("privacy/test_dpsgd_refusals", "autocast_is_refused"),
    ),
    Mutant(
        "gradients stay behind",
        "privacy/per_person.py",
        'layer.weight.__dict__.pop("grad_sample", None)',
        "pass",
        named("privacy/test_dpsgd", "nothing_of_a_person_stays_behind_also_after_a_failure"),
    ),
    Mutant(
        "any shape of the loss",
        _DPSGD,
        "if losses.shape != (len(examples),):",
        "if losses.numel() != len(examples):",
        sensitivity("a_loss_of_another_shape_than_one_a_person_is_refused"),
    ),
    Mutant(
        "mean over the batch's tokens",
        _PROMPTS,
        "index_add(0, rows, losses * shares)",
        "index_add(0, rows, losses * (len(groups) / len(spans)))",
        sensitivity("each_persons_part_of_a_sites_sum_is_theirs_alone"),
    ),
    Mutant(
        "padding counts in the loss",
        _PROMPTS,
        "index_add(0, rows, losses * shares)",
        "index_add(0, rows, losses * shares) * (int(columns.max() + 1) / width)",
        sensitivity("an_examples_loss_depends_neither_on_its_padding_nor_on_the_others"),
    ),
    Mutant(
        "preferences against the batch's mean",
        "model/preferences.py",
        "(margins - references.to(margins))",
        "(margins - margins.detach().mean())",
        named(
            "privacy/test_methods",
            "each_persons_gradient_of_a_preference_is_the_plain_one[lora-xs]",
        ),
    ),
    Mutant(
        "each preference a person of its own",
        "client/people.py",
        "people[note.person].append(preferring.refer(model, item))",
        'people[f"{note.person} {len(people)}"] = [preferring.refer(model, item)]',
        named("client/test_people", "a_person_is_one_item_however_many_preferences"),
    ),
)
