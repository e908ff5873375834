"""The language model: catalogue, adapter, prompts, scoring, generation."""
