"""
The checks of what is judged with: weights, device, policy, bank, canaries, calibration, and the shadow's candidate.
"""

import os
from typing import Final

from worker.adapters.clip_device import bf16_gain, survey_device
from worker.adapters.faiss_bank import FaissBank
from worker.bank.canary_files import read_canaries
from worker.bank.fit import check_fit
from worker.bank.leaving_out import Without
from worker.decoders import open_decoder
from worker.doctor.finding import Check, Finding, Unanswerable, failed, ok, skipped, warning
from worker.doctor.parts import Parts
from worker.encoders import device_of, encode_threads, faster_in_bf16, for_pipeline, survey_runtime
from worker.errors import CannotStart
from worker.flow.bank_judge import BankJudge
from worker.instruments import (
    Beside,
    Instruments,
    buckets_of,
    open_release,
    trial_judge,
)
from worker.judgement.conformal import reals_needed
from worker.operation.canaries import NAMED, canary_misses, require_agreement, require_canaries
from worker.operation.shadowing import open_candidate
from worker.policy import Policy, applied_rule, check_policy_fits
from worker.settings.tree import Settings
from worker.stages.assess import flag_thresholds
from worker.whole_banks import WholeBank, bank_path, read_bank, read_release

LOADING_S: Final = 180.0
"""Weights may have to be downloaded, and hashed on a slow disk."""

_SHORT: Final = 12
_LOOK: Final = "look at what changed in this bank, or correct the canaries"
_FIT: Final = "run `touchstone fit BANK --calibration DIR` over more reals, or set a larger rule.alpha in the policy"


def model_checks(settings: Settings, parts: Parts) -> list[Check]:
    """
    All of them, in the order in which one needs the other.
    """
    return [
        Check(
            "weights",
            lambda: weights(parts),
            "correct encoder.model, encoder.checkpoint and encoder.checkpoint_sha256 (sha256sum FILE prints it)",
            LOADING_S,
        ),
        Check("device", lambda: device(settings, parts), "set encoder.device to auto, or cpu", LOADING_S),
        Check("policy", lambda: policy(parts), "correct the file that policy.path names", LOADING_S),
        Check(
            "bank",
            lambda: bank(settings, parts),
            "run `touchstone bank verify BANK`; build it anew with this encoder, or activate another release",
            LOADING_S,
        ),
        Check(
            "canaries",
            lambda: canaries(settings, parts),
            f"run `touchstone bank rollback {settings.bank.releases or 'PLACE'}`, or publish the release again with "
            "canaries that are right",
            LOADING_S,
        ),
        Check("calibration", lambda: calibration(parts), _FIT, LOADING_S),
        Check(
            "shadow",
            lambda: shadow(settings, parts),
            "correct shadow.bank_path, shadow.judgement_path and shadow.policy_path, or set shadow.enabled = false",
            LOADING_S,
        ),
    ]


def weights(parts: Parts) -> Finding:
    """
    They are there, have the hash that was declared, and have been tried on one picture.
    """
    found = parts.encoder.own().fingerprint
    return ok(f"{found.model}: weights {found.weights_sha256[:_SHORT]}, {found.dim} dimensions, {found.precision}")


def device(settings: Settings, parts: Parts) -> Finding:
    """
    Where the encoder runs, and with how many threads.
    """
    parts.encoder.borrowed()
    found, cores = survey_device(settings.encoder.device), len(os.sched_getaffinity(0))
    other = survey_runtime(for_pipeline(settings.encoder))
    if found.gpu is not None and other is None:
        return ok(f"CUDA: {found.gpu}, torch {found.torch_version}; {_device_jpegs(settings)}")
    threads = found.threads * encode_threads(settings.encoder) if other is None else other.threads
    text = f"CPU: {threads} threads on {cores} cores, "
    text += f"torch {found.torch_version}" if other is None else f"{other.name}, exported to {other.kept}"
    if threads > cores:
        return warning(
            text, f"set encoder.threads, times encoder.instances, to {cores} or less: more only wait for each other"
        )
    if faster_in_bf16(settings.encoder):
        return ok(f'{text}; it multiplies {bf16_gain():.1f} times as fast in bf16: see encoder.precision = "bf16"')
    return ok(text)


def _device_jpegs(settings: Settings) -> str:
    """
    Whether the GPU decodes JPEGs, asked of it: with ``encoder.jpeg_decoder = "device"`` no worker starts without.
    """
    from worker.adapters.device_jpeg import DeviceJpegs  # noqa: PLC0415 - its library, only where there is a GPU

    try:
        version = DeviceJpegs(device_of(settings.encoder)).version
    except CannotStart as refusal:
        if settings.encoder.jpeg_decoder == "device":
            raise
        return f"it decodes no JPEGs: {refusal}"
    chosen = "" if settings.encoder.jpeg_decoder == "device" else ', with encoder.jpeg_decoder = "device"'
    return f"it decodes JPEGs{chosen} ({version})"


def policy(parts: Parts) -> Finding:
    """
    It reads, and has a rule for each label of the bank.
    """
    found = parts.policy.own()
    text = f"{found.id} {found.version} ({found.sha256[:_SHORT]}), {len(found.surfaces)} surfaces"
    try:
        stored = parts.bank.borrowed().stored
    except Unanswerable:
        return ok(f"{text}; whether it fits the bank is not known")
    check_policy_fits(found, stored.identity("flat"))
    return ok(f"{text}, rule {_applied(found, parts.bank.borrowed())}")


def bank(settings: Settings, parts: Parts) -> Finding:
    """
    Its files have their checksums, and it is of the encoder's space: the probe picture lies where it lay.
    """
    stored = parts.bank.own().stored
    manifest = stored.manifest
    sizes = ", ".join(f"{count} {label}" for label, count in stored.sizes.items())
    left = "" if stored.without is None else f", without {stored.without}"
    text = f"{manifest.id} {manifest.version} ({stored.manifest_sha256[:_SHORT]}): {sizes}{left}"
    try:
        encoder = parts.encoder.borrowed()
    except Unanswerable:
        return ok(f"{text}; whether it fits the encoder is not known")
    cosine = check_fit(stored, encoder, open_decoder(settings, encoder, stored.views))
    return ok(f"{text}; probe cosine {cosine:.6f}")


def canaries(settings: Settings, parts: Parts) -> Finding:
    """
    The canaries of the active release are judged as expected, by the judge that a worker would start with.
    """
    active = parts.release.borrowed()
    if active is None:
        return _own_canaries(settings, parts)
    control = active.control
    if control.canaries_sha256 is None:
        require_canaries(f"release {control.release}", (), settings.bank)
        return skipped(f"release {control.release} was published without --canaries, which would try it first")
    left = parts.bank.borrowed()
    found = read_canaries(active.folder, left.stored.manifest, activated=control.canaries_sha256)
    misses = canary_misses(_judge_of(settings, parts, left), found)
    text = f"release {control.release}: {len(found) - len(misses)} of {len(found)} judged as expected"
    if not misses:
        return ok(text)
    named = f"{text}. The worst: {'; '.join(miss.told() for miss in misses[:NAMED])}"
    if Without.of(control) != Without():
        # A worker uses such a release if it passes with nothing left out, see ``worker.operation.canaries``.
        read = read_release(active.folder, control, settings.bank.trusted_keys)
        whole = canary_misses(_judge_of(settings, parts, read), found)
        require_agreement(whole, len(found), agreement=settings.bank.canary_agreement)
        advice = "publish a release without these references, with canaries"
        return warning(f"{named}; references of it are disabled", advice)
    require_agreement(misses, len(found), agreement=settings.bank.canary_agreement)
    return warning(
        f"{named}; bank.canary_agreement is {settings.bank.canary_agreement:g}",
        f"{_LOOK} and publish it again",
    )


def _own_canaries(settings: Settings, parts: Parts) -> Finding:
    left = parts.bank.borrowed()
    found = read_canaries(bank_path(settings), left.stored.manifest)
    require_canaries("the bank", found, settings.bank)
    if not found:
        return skipped("bank.releases is not set, and the bank's directory has no canaries of its own")
    misses = canary_misses(_judge_of(settings, parts, left), found)
    text = f"{len(found) - len(misses)} of {len(found)} judged as expected"
    if not misses:
        return ok(text)
    named = f"{text}. The worst: {'; '.join(miss.told() for miss in misses[:NAMED])}"
    if left.stored.without is None:
        require_agreement(misses, len(found), agreement=settings.bank.canary_agreement)
        return warning(f"{named}; bank.canary_agreement is {settings.bank.canary_agreement:g}", _LOOK)
    # A worker starts with such a bank if it passes with nothing left out, see ``worker.operation.canaries``.
    read = read_bank(bank_path(settings), settings.bank.trusted_keys)
    whole = canary_misses(_judge_of(settings, parts, read), found)
    require_agreement(whole, len(found), agreement=settings.bank.canary_agreement)
    advice = "build the bank again without these references, with canaries"
    return warning(f"{named}; references of it are quarantined (bank.quarantine_path)", advice)


def _judge_of(settings: Settings, parts: Parts, bank: WholeBank) -> BankJudge:
    encoder, views = parts.encoder.borrowed(), bank.stored.views
    beside = Beside(encoder, open_decoder(settings, encoder, views), parts.policy.borrowed(), views)
    return trial_judge(open_release(beside, settings, bank, Without()))


def calibration(parts: Parts) -> Finding:
    """
    There is a judgement, and it has real pictures enough for the bound that the policy promises.
    """
    whole, wanted = parts.bank.borrowed(), parts.policy.borrowed()
    if _applied(wanted, whole) != "fused":
        if whole.judgement is None:
            return warning(
                "the bank carries no fitted judgement: verdicts have a vote and no probability, and no bound holds",
                "run `touchstone fit BANK`",
            )
        return skipped("the policy's rule does not ask for the judgement")
    rule, judgement = wanted.rule, whole.judgement
    if judgement is None:
        return failed("the policy asks for rule fused, and the bank carries no judgement", _FIT)
    judgement = judgement.serving(rule.alpha, rule.pac_delta, rule.guarantee)
    flag_thresholds(judgement, buckets_of(judgement), rule)
    sets = len(buckets_of(judgement))
    return ok(
        f"{judgement.id[:_SHORT]}: {len(judgement.reals.bucket)} reals in {sets} sets, each enough for alpha "
        f"{rule.alpha:g} (at least {reals_needed(rule.alpha, rule.pac_delta)})"
    )


def _applied(wanted: Policy, whole: WholeBank) -> str:
    return applied_rule(wanted, whole.stored.identity("flat"), fitted=whole.judgement is not None)


def shadow(settings: Settings, parts: Parts) -> Finding:
    """
    The candidate opens beside the live instruments.
    """
    if not settings.shadow.enabled:
        return skipped("shadow.enabled is false")
    stored, encoder = parts.bank.borrowed().stored, parts.encoder.borrowed()
    decoder = open_decoder(settings, encoder, stored.views)
    live = Instruments(encoder, decoder, FaissBank(stored, settings.bank), parts.policy.borrowed(), views=stored.views)
    candidate = open_candidate(settings, live)
    identity = candidate.bank.identity
    return ok(
        f"{settings.shadow.name}: bank {identity.id} {identity.version}, policy {candidate.policy.id} "
        f"{candidate.policy.version}, {settings.shadow.sample_rate:g} of the uploads"
    )
