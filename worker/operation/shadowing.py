"""
The shadow run of a live worker: its candidate opened beside the live instruments, and its thread around the live judge.

How it judges and what it counts is in ``worker.flow.shadow``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from worker.adapters.kafka_shadow import KafkaShadowOutbox
from worker.adapters.system_clock import SystemClock
from worker.bank.leaving_out import Without
from worker.errors import CannotStart, ConfigInvalid, TouchstoneError
from worker.flow.bank_judge import BankJudge
from worker.flow.judging import Judge
from worker.flow.shadow import Candidate, Shadow, ShadowingJudge, ShadowLimits, ShadowOutbox
from worker.instruments import Instruments, open_beside, policy_path
from worker.operation.other_judgement import judged_by, require_asked
from worker.operation.quarantined import quarantined
from worker.policy import load_policy
from worker.ports import Recorder
from worker.settings.tree import Settings
from worker.stages.report import RunVersions
from worker.stages.serialise import Route, source_of, to_message
from worker.telemetry.metrics import InMemoryRecorder
from worker.whole_banks import bank_path, read_bank

log = structlog.get_logger(__name__)

SHADOW_ENDS_S: Final = 1.0
"""How long the candidate may go on with what it has queued once the worker leaves."""


@contextmanager
def shadowing(
    settings: Settings, live: Instruments, *, instance_id: str, recorder: Recorder
) -> Iterator[Shadow | None]:
    """
    The configured shadow, its thread running inside; None where none is configured.

    Raises ``CannotStart`` for a candidate that does not fit the live instruments, and for a missing shadow topic; once
    inside, no fault of the candidate gets out.
    """
    if not settings.shadow.enabled:
        del live  # its bank may be exchanged while the worker runs
        yield None
        return
    candidate = open_candidate(settings, live)
    del live  # it holds the first bank, which may be exchanged
    outbox = KafkaShadowOutbox(settings.kafka, client_id=instance_id)
    shadow = build_shadow(settings, candidate, outbox, recorder=recorder)
    shadow.start()
    _tell(settings, candidate)
    try:
        yield shadow
    finally:
        shadow.close(SHADOW_ENDS_S)


def around(live: Judge, shadow: Shadow | None) -> Judge:
    """
    The judge that the pipeline asks: the live one, of whose uploads the shadow hears where there is one.
    """
    return live if shadow is None else ShadowingJudge(live, shadow)


def open_candidate(settings: Settings, live: Instruments) -> Instruments:
    """
    The candidate bank, judgement and policy over the live encoder and decoder; what is not set is the live worker's.

    A bank is opened for the candidate alone, also where it is the live one: the live judge must not wait for its turn.
    A candidate judgement or policy keeps the bank that is live at the start, with what was disabled of it then, also
    when the worker changes to another release; its verdicts name it. A judgement could not follow, for it is fitted to
    these very references. Raises ``CannotStart`` or ``ConfigInvalid`` that names the setting.
    """
    wanted = settings.shadow
    try:
        return _candidate(settings, live)
    except TouchstoneError as error:
        paths = {
            "bank_path": wanted.bank_path,
            "judgement_path": wanted.judgement_path,
            "policy_path": wanted.policy_path,
        }
        named = [f"shadow.{name} = {path}" for name, path in paths.items() if path is not None]
        text = (
            f"The shadow's candidate ({', '.join(named)}) does not fit the live worker: {str(error).rstrip(chr(46))}. "
            "Correct it, or set shadow.enabled = false to start without"
        )
        raise (ConfigInvalid(text) if isinstance(error, ConfigInvalid) else CannotStart(text)) from error


def _candidate(settings: Settings, live: Instruments) -> Instruments:
    wanted = settings.shadow
    beside = replace(live.beside, policy=load_policy(wanted.policy_path or policy_path(settings.policy)))
    left = None
    if wanted.bank_path is None and live.release is not None:
        whole, left = live.release.whole, Without.of(live.release.control)
    else:
        whole = read_bank(wanted.bank_path or bank_path(settings), settings.bank.trusted_keys)
        # A candidate bank is tried as it is: the list is of the live one, and may name another.
        left = quarantined(settings, whole.stored) if wanted.bank_path is None else None
    if wanted.judgement_path is None:
        return open_beside(beside, settings, whole=whole, left=left)
    other = judged_by(whole, wanted.judgement_path, settings.bank.trusted_keys)
    candidate = open_beside(beside, settings, whole=other, left=left)
    require_asked(candidate)
    return candidate


def build_shadow(settings: Settings, candidate: Instruments, outbox: ShadowOutbox, *, recorder: Recorder) -> Shadow:
    """
    The shadow of an opened candidate, not started yet.

    What the candidate counts is not the live worker's: of it only ``shadow_total`` and ``shadow_seconds`` are told.
    """
    limits = ShadowLimits(settings.shadow.sample_rate, settings.shadow.max_waiting)
    judge = BankJudge(
        candidate.bank,
        candidate.policy,
        shadow_versions(settings, candidate),
        SystemClock(),
        InMemoryRecorder(),
        fitted=candidate.fitted,
    )
    route = Route(
        verdicts=settings.kafka.topics.shadow_verdicts,
        dead_letters=settings.kafka.topics.dead_letters,
        source=source_of(settings.service.name),
        sampled_rate=limits.sampled_rate,
    )
    return Shadow(Candidate(judge, partial(to_message, route=route)), outbox, limits=limits, recorder=recorder)


def shadow_versions(settings: Settings, candidate: Instruments) -> RunVersions:
    """
    What the candidate's verdicts say of it; the run id keeps them apart from the live ones and from other candidates'.
    """
    return replace(candidate.versions("shadow"), run_id=settings.shadow.name)


def _tell(settings: Settings, candidate: Instruments) -> None:
    bank, policy = candidate.bank.identity, candidate.policy
    limits = ShadowLimits(settings.shadow.sample_rate, settings.shadow.max_waiting)
    log.info(
        "shadow.started",
        run_id=settings.shadow.name,
        bank=f"{bank.id} {bank.version}",
        judgement=candidate.judgement_id,
        policy=f"{policy.id} {policy.version}",
        topic=settings.kafka.topics.shadow_verdicts,
        sample_rate=limits.sample_rate,
        sampled_rate=limits.sampled_rate,
    )
