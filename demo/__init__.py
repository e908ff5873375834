"""Whole federations on one machine: the demonstration, and an institution alone."""
