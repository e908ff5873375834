"""Mutants of the noise, the sample and their source."""

from __future__ import annotations

from mutant import Mutant, named, noise

_CSPRNG, _DPSGD = "privacy/csprng.py", "privacy/dpsgd.py"

RANDOMNESS = (
    Mutant(
        "noise halved",
        _CSPRNG,
        "total *= std / math.sqrt(_DRAWS)",
        "total *= std / _DRAWS",
        noise("noise_on_the_weights_has_the_promised_scale"),
    ),
    Mutant(
        "noise from a shared key",
        _CSPRNG,
        "algorithms.AES(os.urandom(32))",
        "algorithms.AES(bytes(32))",
        noise("noise_is_independent_over_layers_steps_and_calls"),
        also=("modes.CTR(os.urandom(16))", "modes.CTR(bytes(16))"),
    ),
    Mutant(
        "noise from a seeded generator",
        _CSPRNG,
        "radius = self.uniform(_DRAWS * count)",
        "radius = 1.0 - np.random.default_rng(count).random(_DRAWS * count)",
        noise("noise_is_independent_over_layers_steps_and_calls"),
    ),
    Mutant(
        "noise from numpy's global generator",
        _CSPRNG,
        "return total.reshape(shape)",
        "return np.random.normal(0.0, std, shape)",
        noise("global_seeds_reproduce_neither_noise_nor_batches_nor_notes"),
    ),
    Mutant(
        "sampling from a seeded generator",
        _CSPRNG,
        "np.flatnonzero(self.uniform(count) < rate)",
        "np.flatnonzero(np.random.RandomState(7).uniform(size=count) < rate)",
        noise("being_sampled_says_nothing_about_the_next_steps"),
    ),
    Mutant(
        "sample of a fixed size",
        _CSPRNG,
        "np.flatnonzero(self.uniform(count) < rate)",
        "np.sort(np.argsort(self.uniform(count))[: round(count * rate)])",
        noise("people_are_sampled_independently_of_each_other"),
    ),
    Mutant(
        "shuffle instead of Poisson",
        _DPSGD,
        "sampled = randomness.poisson_sample(len(people), settings.sample_rate)",
        "turns = round(1 / settings.sample_rate)\n"
        "            if done % turns == 0:\n"
        "                order = np.argsort(randomness.uniform(len(people)))\n"
        "            sampled = order[done % turns :: turns]",
        noise("being_sampled_says_nothing_about_the_next_steps"),
    ),
    Mutant(
        "neighbours sampled together",
        _CSPRNG,
        "np.flatnonzero(self.uniform(count) < rate)",
        "np.flatnonzero(np.repeat(self.uniform(count), 2)[:count] < rate)",
        noise("people_are_sampled_independently_of_each_other"),
    ),
    Mutant(
        "the last note is never chosen",
        _CSPRNG,
        "return word % count",
        "return word % max(1, count - 1)",
        named("privacy/test_csprng", "choice_is_uniform_and_in_range"),
    ),
    Mutant(
        "one Gaussian a draw",
        _CSPRNG,
        "_DRAWS = 4",
        "_DRAWS = 1",
        named("privacy/test_csprng", "a_single_draw_is_made_of_four_gaussians"),
    ),
    Mutant(
        "a fork repeats the noise",
        _CSPRNG,
        "if self._owner != os.getpid():",
        "if not self._owner:",
        named("privacy/test_csprng", "a_fork_does_not_repeat_its_parents_stream"),
    ),
    Mutant(
        "a uniform may be 0",
        _CSPRNG,
        "steps += 0.5",
        "steps += 0.0",
        named("privacy/test_csprng", "uniforms_never_touch_zero_or_one"),
    ),
)
