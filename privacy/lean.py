"""Import a library without the heavy ones that it would use if it could.

spaCy and Presidio import torch and transformers when they are installed, for models that nobody
here runs with them: four hundred megabytes in every process that scrubs.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, cast

_HEAVY = ("torch", "transformers", "tensorflow", "jax", "cupy", "mxnet", "stanza", "gliner")


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Let nothing heavy be imported inside, unless it has been already.

    spaCy's own command line touches a name that click has deprecated; that is not worth a word.
    """
    held = [name for name in _HEAVY if name not in sys.modules]
    modules = cast("dict[str, Any]", sys.modules)
    try:
        modules.update(dict.fromkeys(held))
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r"'click\..* is deprecated", category=DeprecationWarning
            )
            yield
    finally:
        for name in held:
            if modules.get(name, held) is None:
                del modules[name]
