"""
The shadow's sample, and what is refused as its candidate when a worker starts.
"""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bank_builders import a_source, build_small
from tests.builders import an_upload
from tests.conftest import ROOT
from tests.fake_encoder import DIM, FakeEncoder, fake_decoder, fake_embedder
from tests.shadow_rig import InMemoryShadowOutbox
from worker.bank.files import read_manifest, write_manifest
from worker.domain import Embedding, Upload
from worker.errors import CannotStart, ConfigInvalid
from worker.fitting.bank_fit import Release, fit_bank
from worker.fitting.fit import FitPlan
from worker.flow.shadow import ShadowLimits
from worker.instruments import Beside, Instruments, open_beside
from worker.judgement.model import FittedJudgement
from worker.operation.shadowing import around, build_shadow, open_candidate, shadow_versions, shadowing
from worker.policy import load_policy
from worker.settings.operations import ShadowSettings
from worker.settings.tree import BankSettings, PolicySettings, Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, ViewSpec
from worker.whole_banks import read_bank

POLICY = ROOT / "config" / "policy.toml"


def upload_of(source: str, event_id: str) -> Upload:
    """
    An upload of this event.
    """
    upload = an_upload()
    return replace(upload, identity=replace(upload.identity, id=event_id, source=source))


def settings_of(live_bank: Path, **shadow: object) -> Settings:
    """
    A worker of this bank with this shadow.
    """
    return Settings(
        bank=BankSettings(path=live_bank),
        policy=PolicySettings(path=POLICY),
        shadow=ShadowSettings.model_validate({"enabled": True, **shadow}),
    )


def a_bank(folder: Path, name: str, *, views: ViewSpec | None = None, reals: int = 5, fakes: int = 4) -> Path:
    """
    A small bank of these views.
    """
    source = a_source(folder / f"{name}-source", reals=reals, fakes=fakes)
    build_small(source, folder / name, fake_embedder() if views is None else fake_embedder(views=views))
    return folder / name


def live_instruments(settings: Settings) -> Instruments:
    """
    What the live worker judges with.
    """
    assert settings.bank.path is not None
    beside = Beside(FakeEncoder(), fake_decoder(), load_policy(POLICY), GLOBAL_ONLY)
    return open_beside(beside, settings, whole=read_bank(settings.bank.path))


def fitted(bank: Path, name: str, *heads: str, seed: int = 0) -> Path:
    """
    What ``touchstone fit`` leaves of a bank under another name.
    """
    out = bank.parent / name
    fit_bank(bank, plan=FitPlan(heads=heads, seed=seed), release=Release(out=out, version=name))
    return out


def judgement_in(instruments: Instruments) -> FittedJudgement:
    """
    The fitted judgement that they apply.
    """
    assert instruments.fitted is not None
    assert isinstance(instruments.fitted.judgement, FittedJudgement)
    return instruments.fitted.judgement


@given(st.text(min_size=1), st.text(min_size=1), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_share_contains_every_smaller_one(source: str, event_id: str, one: float, other: float) -> None:
    """
    Whoever is in the smaller sample is in the larger one, and the share 1 holds everybody.
    """
    upload = upload_of(source, event_id)
    smaller, larger = sorted((one, other))

    assert ShadowLimits(larger, 1).chooses(upload) or not ShadowLimits(smaller, 1).chooses(upload)
    assert ShadowLimits(1.0, 1).chooses(upload)


def test_the_sample_is_pinned() -> None:
    """
    These very uploads are chosen at a tenth, today and after every upgrade.
    """
    limits = ShadowLimits(0.1, 1)
    chosen = [number for number in range(60) if limits.chooses(upload_of("https://a.example", str(UUID(int=number))))]

    assert [47, 48, 54] == chosen


def test_the_sample_has_the_share_that_was_asked_for() -> None:
    """
    Of 20 000 events a tenth is chosen, within five standard deviations.
    """
    limits = ShadowLimits(0.1, 1)
    base = upload_of("https://a.example", "")
    uploads = (replace(base, identity=replace(base.identity, id=f"e{number}")) for number in range(20_000))
    chosen = sum(map(limits.chooses, uploads))

    assert abs(chosen - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize(("share", "rate"), [(1.0, 1), (0.5, 2), (0.1, 10), (0.3, 3), (0.75, 1), (0.001, 1000)])
def test_sampledrate_is_one_in_so_many(share: float, rate: int) -> None:
    """
    CloudEvents' sampledrate is a whole number of at least 1.
    """
    assert rate == ShadowLimits(share, 1).sampled_rate


def test_a_candidate_shares_encoder_and_decoder(tmp_path: Path) -> None:
    """
    A candidate bank is opened over the instruments that are there, and its verdicts name run and mode.
    """
    settings = settings_of(a_bank(tmp_path, "live"), bank_path=a_bank(tmp_path, "new", reals=9), name="new-bank")
    live = live_instruments(settings)
    candidate = open_candidate(settings, live)
    versions = shadow_versions(settings, candidate)

    assert candidate.encoder is live.encoder
    assert candidate.decoder is live.decoder
    assert (9, 13) == (live.bank.identity.entries, candidate.bank.identity.entries)
    assert live.bank.identity.manifest_sha256 != candidate.bank.identity.manifest_sha256
    assert ("shadow", "new-bank") == (versions.mode, versions.run_id)


def test_a_candidate_policy_alone_judges_the_live_bank(tmp_path: Path) -> None:
    """
    Without a bank of its own the candidate has the live one, and the other policy.
    """
    policy = tmp_path / "candidate.toml"
    policy.write_text(POLICY.read_text().replace('id = "default"', 'id = "stricter"'))
    settings = settings_of(a_bank(tmp_path, "live"), policy_path=policy)
    live = live_instruments(settings)
    candidate = open_candidate(settings, live)

    assert live.bank.identity == candidate.bank.identity
    assert ("default", "stricter") == (live.policy.id, candidate.policy.id)


def test_a_candidate_judgement_judges_the_live_references(tmp_path: Path) -> None:
    """
    The candidate heads are those of the folder, the references the live ones, and its verdicts name what was fitted.
    """
    bank = a_bank(tmp_path, "live", reals=24, fakes=12)
    settings = settings_of(fitted(bank, "one", "knn"), judgement_path=fitted(bank, "two", "knn", "real_only"))
    live = live_instruments(settings)
    candidate = open_candidate(settings, live)
    ours, theirs = (
        of.on_surface("default").bank for of in (live.versions("live"), shadow_versions(settings, candidate))
    )
    asked = Embedding.from_features(np.arange(DIM, dtype=np.float32) - 7)
    nearest = [of.bank.nearest([asked], 5) for of in (live, candidate)]

    assert ["knn"] == [head.name for head in judgement_in(live).heads]
    assert {"knn", "real_only"} == {head.name for head in judgement_in(candidate).heads}
    assert nearest[0] == nearest[1]
    assert ("one", "two") == (ours.version, theirs.version)
    assert ours.judgement != theirs.judgement
    assert ours.manifest_sha256 != theirs.manifest_sha256


def test_of_a_candidate_judgement_four_files_are_enough(tmp_path: Path) -> None:
    """
    The references are read from the live bank: those of the folder need not be there.
    """
    bank = a_bank(tmp_path, "live", reals=24, fakes=12)
    judgement = fitted(bank, "two", "knn")
    for path in judgement.iterdir():
        if path.name not in {"manifest.json", "manifest.sha256", "judgement.json", "heads.safetensors"}:
            path.unlink()
    settings = settings_of(bank, judgement_path=judgement)
    candidate = open_candidate(settings, live_instruments(settings))

    assert candidate.fitted is not None
    assert 36 == candidate.bank.identity.entries


def test_a_candidate_judgement_of_other_references_is_refused(tmp_path: Path) -> None:
    """
    The message names the setting, both banks, what was found and what was expected.
    """
    other = fitted(a_bank(tmp_path, "other", reals=25, fakes=12), "fitted-other", "knn")
    settings = settings_of(a_bank(tmp_path, "live", reals=24, fakes=12), judgement_path=other)
    said = (
        r"shadow\.judgement_path = .*fitted-other.*vectors\.safetensors has sha256 \w{64}, expected \w{64}.*"
        r"counts\.entries is 37, expected 36.*shadow\.bank_path.*shadow\.enabled = false"
    )

    with pytest.raises(CannotStart, match=said):
        open_candidate(settings, live_instruments(settings))


def test_a_candidate_judgement_of_another_encoder_is_refused(tmp_path: Path) -> None:
    """
    Also where its manifest claims the live references: then the part that differs is named.
    """
    bank = a_bank(tmp_path, "live", reals=24, fakes=12)
    judgement = fitted(bank, "two", "knn")
    manifest = read_manifest(judgement)
    encoder = manifest.encoder.model_copy(update={"weights_sha256": "ab" * 32})
    write_manifest(judgement, manifest.model_copy(update={"encoder": encoder}))
    settings = settings_of(bank, judgement_path=judgement)

    with pytest.raises(
        CannotStart, match=r"shadow\.judgement_path.*encoder\.weights_sha256 is (ab){32}, expected \w{64}"
    ):
        open_candidate(settings, live_instruments(settings))


def test_a_damaged_candidate_judgement_is_refused(tmp_path: Path) -> None:
    """
    Its own hash says so.
    """
    bank = a_bank(tmp_path, "live", reals=24, fakes=12)
    judgement = fitted(bank, "two", "knn")
    text = (judgement / "judgement.json").read_text().replace('"seed": 0', '"seed": 1')
    (judgement / "judgement.json").unlink()  # it may be linked
    (judgement / "judgement.json").write_text(text)
    settings = settings_of(bank, judgement_path=judgement)

    with pytest.raises(CannotStart, match=r"shadow\.judgement_path.*hash to"):
        open_candidate(settings, live_instruments(settings))


def test_a_candidate_judgement_that_is_none_is_refused(tmp_path: Path) -> None:
    """
    No folder, and a bank that was never fitted; either way the message says what to run.
    """
    bank = a_bank(tmp_path, "live", reals=24, fakes=12)
    nowhere, plain = (settings_of(bank, judgement_path=path) for path in (tmp_path / "nowhere", bank))
    live = live_instruments(nowhere)

    with pytest.raises(CannotStart, match=r"shadow\.judgement_path = .*found no directory.*touchstone fit BANK --out"):
        open_candidate(nowhere, live)
    with pytest.raises(CannotStart, match=r"shadow\.judgement_path = .*names no judgement.*touchstone fit BANK --out"):
        open_candidate(plain, live)


def test_a_candidate_judgement_that_no_policy_asks_is_refused(tmp_path: Path) -> None:
    """
    Under soft_vote all its heads would be silent; with a candidate policy that asks them it opens.
    """
    bank = a_bank(tmp_path, "live", reals=24, fakes=12)
    silent, asking = tmp_path / "silent.toml", tmp_path / "asking.toml"
    asking.write_text(POLICY.read_text())
    silent.write_text(POLICY.read_text().replace('name = "auto"', 'name = "soft_vote"'))
    judgement = fitted(bank, "two", "knn")
    refused, opened = (settings_of(bank, judgement_path=judgement, policy_path=path) for path in (silent, asking))
    live = live_instruments(refused)

    with pytest.raises(
        ConfigInvalid, match=r"shadow\.judgement_path = .*rule\.name soft_vote, which asks no judgement"
    ):
        open_candidate(refused, live)
    assert open_candidate(opened, live).fitted is not None


def test_a_candidate_with_other_views_is_refused(tmp_path: Path) -> None:
    """
    What is measured of uploads for the live bank would say nothing to it; the message says what to do.
    """
    other = a_bank(tmp_path, "rich", views=ViewSpec(native_crops=2))
    settings = settings_of(a_bank(tmp_path, "live"), bank_path=other)

    with pytest.raises(CannotStart, match=r"shadow\.bank_path = .*rich.*views .* live bank.*shadow\.enabled = false"):
        open_candidate(settings, live_instruments(settings))


def test_a_candidate_of_another_encoder_is_refused(tmp_path: Path) -> None:
    """
    Vectors of two encoders cannot be compared.
    """
    settings = settings_of(a_bank(tmp_path, "live"), bank_path=a_bank(tmp_path, "new"))
    live = live_instruments(settings)

    with pytest.raises(CannotStart, match=r"shadow\.bank_path.*built by another encoder: weights"):
        open_candidate(settings, replace(live, encoder=FakeEncoder(weights=2)))


def test_a_candidate_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """
    The message names the setting, and keeps the exit code of what was wrong.
    """
    settings = settings_of(a_bank(tmp_path, "live"), bank_path=tmp_path / "nowhere")
    worse = settings_of(tmp_path / "live", policy_path=tmp_path / "nowhere.toml")
    live = live_instruments(settings)

    with pytest.raises(CannotStart, match=r"shadow\.bank_path = .*nowhere"):
        open_candidate(settings, live)
    with pytest.raises(ConfigInvalid, match=r"shadow\.policy_path = .*nowhere.toml"):
        open_candidate(worse, live)


def test_without_a_shadow_the_judge_stays_alone(tmp_path: Path) -> None:
    """
    A worker without a shadow builds nothing, and its judge is the live one itself.
    """
    settings = settings_of(a_bank(tmp_path, "live"), enabled=False)
    live = live_instruments(settings)
    with shadowing(settings, live, instance_id="one", recorder=InMemoryRecorder()) as shadow:
        judge = build_shadow(settings, live, InMemoryShadowOutbox(), recorder=InMemoryRecorder())._candidate.judge

        assert shadow is None
        assert around(judge, shadow) is judge
