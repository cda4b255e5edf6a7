"""
What the operator keeps from judging in the bank at ``bank.path``, read from the list that the settings name.

The list itself is ``worker.bank.quarantine``; what is disabled in a place of releases comes with its control record.
"""

from typing import Final

import structlog

from worker.bank.files import StoredBank
from worker.bank.leaving_out import Without
from worker.bank.quarantine import read_quarantine, require_bank
from worker.settings.tree import Settings

log = structlog.get_logger(__name__)

NAMED: Final = 10
"""Of the names that the bank does not have, so many are told."""


def quarantined(settings: Settings, stored: StoredBank) -> Without:
    """
    What is to be left out of this bank; nothing where no list is configured.

    A name that the bank does not have is warned of and kept: a later version may have been built without it. Raises
    ``BankInvalid`` for a list that is missing or damaged, ``ConfigInvalid`` for one of another bank.
    """
    path = settings.bank.quarantine_path
    if path is None:
        return Without()
    found = read_quarantine(path)
    require_bank(found, path, stored.manifest.id)
    wanted = found.without()
    unknown = wanted.strangers(stored.entries).names()
    if unknown:
        log.warning(
            "bank.quarantine_unknown",
            names=unknown[:NAMED],
            unknown=len(unknown),
            advice="no reference has these names: they are mistyped, or of an earlier version; `touchstone bank "
            "disable BANK --list` shows the list, --enable takes a name off it",
        )
    log.info(
        "bank.quarantined",
        path=str(path),
        names=len(found.quarantined),
        references=len(stored.entries) - len(wanted.kept_rows(stored.entries)),
    )
    return wanted
