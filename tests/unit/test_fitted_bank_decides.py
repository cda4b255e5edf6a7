"""
From a fitted bank on disk to verdicts: what the worker opens, what it refuses, and what decides.
"""

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.verdict import ImageVerdictV1
from tests.peers import assert_valid
from worker.adapters.clip_encoder import load_encoder
from worker.bank.build import BuildPlan, build_bank
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.manifest import GENERATED
from worker.bank.release import with_judgement
from worker.bank.sources import list_source
from worker.cli.explain import explain
from worker.decoders import open_decoder
from worker.dev.small_encoder import write_small_encoder
from worker.errors import BankInvalid, ConfigInvalid
from worker.fitting.bank_fit import Release, files_of, fit_bank
from worker.fitting.fit import FitPlan
from worker.heads.knn import Knn
from worker.instruments import Instruments, buckets_of, open_instruments
from worker.judgement.store import identified, read_judgement
from worker.outcomes import Message
from worker.policy import shipped_policy
from worker.scanning import scan_files
from worker.settings.tree import BankSettings, EncoderSettings, PolicySettings, Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import ViewSpec

SIDE_PX = 96
VIEWS = ViewSpec(native_crops=1, realism=True, perturbation=True)
PLAN = FitPlan(heads=("knn", "probe", "realism", "perturbation"))


@dataclass(frozen=True, slots=True)
class Made:
    """
    An encoder, a bank of it that was never fitted, and the same bank fitted.
    """

    folder: Path
    encoder: EncoderSettings
    plain: Path
    fitted: Path

    def settings(self, bank: Path, **rule: Any) -> Settings:  # noqa: ANN401 - keys of the policy's rule
        """
        Those of a worker over this bank, under the shipped policy with these keys changed.
        """
        policy = self.folder / "policy.toml"
        text = shipped_policy().read_text(encoding="utf-8")
        for key, value in rule.items():
            old = tomllib.loads(text)["rule"][key]
            shown = f'"{value}"' if isinstance(value, str) else value
            text = text.replace(f'{key} = "{old}"' if isinstance(old, str) else f"{key} = {old}", f"{key} = {shown}")
        policy.write_text(text, encoding="utf-8")
        return Settings(encoder=self.encoder, bank=BankSettings(path=bank), policy=PolicySettings(path=policy))


def write_picture(path: Path, *, generated: bool, seed: int) -> None:
    """
    A bright disc on a ramp with fine grain, and where generated with a grid as up-sampling leaves it.
    """
    random = np.random.default_rng([seed, generated])
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    slopes, offset = random.uniform(-60, 60, (2, 3)), random.uniform(100, 150, 3)
    pixels = offset + x[..., None] * slopes[0] + y[..., None] * slopes[1] + random.normal(0, 4, (SIDE_PX, SIDE_PX, 3))
    pixels[(x - 0.5) ** 2 + (y - 0.5) ** 2 < random.uniform(0.02, 0.1)] += 70
    if generated:
        pixels += 45 * ((np.arange(SIDE_PX) // 2 % 2)[:, None, None] - 0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def build(source: Path, out: Path, encoder: EncoderSettings) -> None:
    """
    A bank of these pictures, with every view.
    """
    loaded = load_encoder(encoder, recorder=InMemoryRecorder())
    decoder = open_decoder(Settings(), loaded, VIEWS)
    embedder = ReferenceEmbedder(loaded, decoder, views=VIEWS)
    build_bank(list_source(source, GENERATED), out, embedder=embedder, plan=BuildPlan(id="grids"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """
    24 pictures of each label, of two generators.
    """
    folder = tmp_path_factory.mktemp("fitted")
    for seed in range(24):
        write_picture(folder / "source" / "real" / f"{seed}.png", generated=False, seed=seed)
        generator = ("mill", "loom")[seed % 2]
        write_picture(folder / "source" / "fake" / generator / f"{seed}.png", generated=True, seed=seed)
    small = write_small_encoder(folder / "encoder")
    encoder = EncoderSettings(model=small.model, checkpoint_sha256=small.checkpoint_sha256, device="cpu", threads=1)
    build(folder / "source", folder / "plain", encoder)
    fit_bank(folder / "plain", plan=PLAN, release=Release(out=folder / "bank"))
    return Made(folder, encoder, folder / "plain", folder / "bank")


def opened(settings: Settings) -> Instruments:
    """
    What the worker opens.
    """
    return open_instruments(settings, InMemoryRecorder())


def scanned(settings: Settings, files: list[Path]) -> list[ImageVerdictV1]:
    """
    The verdicts of a scan, each valid to a peer.
    """
    lines: list[Message] = []
    scan_files(settings, files, surface=None, write=lines.append)
    for line in lines:
        assert_valid("image.verdict.v1", line.value)
    return [ImageVerdictV1.model_validate_json(line.value) for line in lines]


def test_a_fitted_bank_decides_by_its_judgement(made: Made, tmp_path: Path) -> None:
    """
    Rule auto: new pictures of either kind are told apart, with a probability and a p-value, by all heads.
    """
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for number, file in enumerate(files):
        write_picture(file, generated=number < 3, seed=1000 + number)
    verdicts = scanned(made.settings(made.fitted), files)
    labels = [verdict.outcome.decision for verdict in verdicts]
    first = verdicts[0]

    assert {verdict.thresholds.rule for verdict in verdicts} == {"fused"}
    assert "real" not in labels[:3]
    assert "ai_generated" not in labels[3:]
    assert first.calibration is not None
    assert first.outcome.probability is not None
    assert first.calibration.id == first.versions.bank.judgement == read_judgement(made.fitted).id
    assert first.versions.bank.views == VIEWS.sha256
    assert {"knn", "probe", "realism"} <= {score.name for score in first.scores}
    assert all(verdict.attribution is not None for verdict in verdicts)


def test_where_the_bound_holds_is_the_policys_choice(made: Made, tmp_path: Path) -> None:
    """
    Of the same bank and picture: ranked among each source of reals that has enough for alpha, or among none.
    """
    file, judgement = tmp_path / "one.png", read_judgement(made.fitted)
    write_picture(file, generated=False, seed=2001)
    named = identified(replace(judgement, reals=replace(judgement.reals, source=("left",) * 12 + ("right",) * 12)))
    with_judgement(made.plain, files_of(named), out=tmp_path / "named")
    found = [
        scanned(made.settings(tmp_path / "named", alpha=alpha, guarantee=guarantee), [file])[0].calibration
        for alpha, guarantee in ((0.08, "each_source"), (0.05, "each_source"), (0.08, "pooled"))
    ]
    each, small, pooled = (one for one in found if one is not None)

    assert [("each_source", 2), ("each_source", 0), ("pooled", 0)] == [(o.guarantee, o.sources) for o in found if o]
    assert each.p_value > pooled.p_value == small.p_value
    assert {0.08} == {each.flag_threshold, pooled.flag_threshold}


def test_the_ids_of_decisions_depend_on_the_judgement(made: Made, tmp_path: Path) -> None:
    """
    The manifest names the judgement's files by their hashes, and the ids are made from the manifest's.
    """
    file = tmp_path / "one.png"
    write_picture(file, generated=True, seed=2000)
    [by_vote], [by_judgement] = (scanned(made.settings(bank), [file]) for bank in (made.plain, made.fitted))

    assert by_vote.versions.bank.judgement is None
    assert by_vote.versions.bank.manifest_sha256 != by_judgement.versions.bank.manifest_sha256
    assert by_vote.decision_id != by_judgement.decision_id


def test_a_vote_that_the_policy_asks_for_is_taken_and_the_judgement_still_named(made: Made) -> None:
    """
    Nothing is assessed, and the versions say what the bank carries.
    """
    instruments = opened(made.settings(made.fitted, name="soft_vote"))

    assert instruments.fitted is None
    assert instruments.versions("live").judgement == read_judgement(made.fitted).id


def test_fused_with_a_bank_that_was_never_fitted_is_refused(made: Made) -> None:
    """
    Before the encoder is loaded, and with the command that helps.
    """
    with pytest.raises(ConfigInvalid, match="touchstone fit BANK"):
        opened(made.settings(made.plain, name="fused"))


def test_an_alpha_that_the_calibration_cannot_support_is_refused(made: Made) -> None:
    """
    24 reals cannot promise one false positive in a thousand.
    """
    with pytest.raises(ConfigInvalid, match=r"has 24 reals.* needs at least 999"):
        opened(made.settings(made.fitted, alpha=0.001))


def test_every_bucket_has_its_threshold(made: Made) -> None:
    """
    A bucket without one would fail its uploads.
    """
    instruments = opened(made.settings(made.fitted))

    assert instruments.fitted is not None
    assert instruments.fitted.flag_thresholds.keys() == buckets_of(read_judgement(made.fitted))
    assert instruments.fitted.grey_zone == (0.2, 0.8)


def test_a_judgement_of_other_references_is_refused(made: Made, tmp_path: Path) -> None:
    """
    It would attribute pictures to rows that are somebody else's.
    """
    judgement = read_judgement(made.fitted)
    fewer = replace(judgement.attribution, code=judgement.attribution.code[1:])
    other = identified(replace(judgement, attribution=fewer))
    with_judgement(made.plain, files_of(other), out=tmp_path / "mixed")

    with pytest.raises(BankInvalid, match=r"over 48 references, found .* over 47: .*touchstone fit"):
        opened(made.settings(tmp_path / "mixed"))


def test_explain_takes_the_banks_judgement(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Tiles are counted as the fitted head of this bank counts, and without a judgement as the vote stands.
    """
    write_picture(tmp_path / "one.png", generated=True, seed=900)
    encoder = [f"encoder.model={made.encoder.model}", f"encoder.checkpoint_sha256={made.encoder.checkpoint_sha256}"]
    sets = [argument for one in (*encoder, "encoder.device=cpu") for argument in ("--set", one)]
    said = []
    for bank in (made.fitted, made.plain):
        places = [str(tmp_path / "one.png"), "--bank", str(bank), "--out", str(tmp_path / "review.png"), "--json"]
        assert explain.main([*places, *sets], standalone_mode=False) == 0
        said.append(json.loads(capsys.readouterr().out)["vote"])
    judgement = read_judgement(made.fitted)
    knn = judgement.heads[0]

    assert isinstance(knn, Knn)
    assert (said[0]["judgement"], said[0]["head"]) == (judgement.id, "knn")
    assert (said[0]["k"], said[0]["temperature"]) == (knn.k, knn.temperature)
    assert said[0]["direction"] == judgement.scales[0].direction
    assert (said[1]["judgement"], said[1]["head"]) == (None, None)
