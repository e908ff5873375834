"""The one error of this package."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration file cannot be used; the sentence names file, key and remedy.

    Values that a person wrote into a table never appear in the sentence.
    """

    code = "config"
    exit_code = 2
