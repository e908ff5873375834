"""Every kind of event: one table, and nothing outside it is ever logged.

No field can hold record text: texts are names, codes, decimals, digests or short plain words, and
anything that would say something about the data itself is a salted commitment. A kind belongs to
the file of the log that it is written to, together with the header fields that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit import kinds_coordinator, kinds_either, kinds_officer, kinds_site
from audit.fields import Table

KINDS: Mapping[str, Table] = {
    **kinds_either.KINDS,
    **kinds_site.KINDS,
    **kinds_coordinator.KINDS,
    **kinds_officer.KINDS,
}
IN_ROUND = kinds_site.IN_ROUND | kinds_coordinator.IN_ROUND
IN_RUN = kinds_either.IN_RUN | kinds_site.IN_RUN | kinds_coordinator.IN_RUN
BULK = kinds_either.BULK
ACCESS = kinds_either.ACCESS
