"""
Places of releases with small banks of the fake encoder, and a worker's watch over one.
"""

import json
from pathlib import Path

import pytest

from schemas.bank_control import BankControlV1
from tests.bank_builders import a_source, build_small, write_pictures
from tests.conftest import ROOT
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.adapters.system_clock import SystemClock
from worker.bank.canary_files import embed_canaries, write_canaries
from worker.bank.files import read_manifest
from worker.bank.manifest import GENERATED
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.bank.signing_key import make_key, read_key, sign_bank
from worker.bank.sources import list_source
from worker.flow.bank_judge import BankJudge
from worker.instruments import Instruments, open_instruments
from worker.operation.bank_watch import BankWatch
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder

BY = Issuer("a test")


def small_banks(folder: Path, count: int = 2) -> list[Path]:
    """
    Versions 1, 2, ... of one bank; each has a real more than the one before, and fakes of ``mill`` and of ``loom``.
    """
    banks = []
    for number in range(count):
        source = a_source(folder / f"source-{number}", reals=6 + number, fakes=4)
        write_pictures(source, *(f"fake/loom/{at:03d}.png" for at in range(3)), first_seed=2000)
        banks.append(folder / f"bank-{number}")
        build_small(source, banks[-1], version=str(number + 1))
    return banks


def canaries_of(bank: Path, folder: Path, *, wrong: int = 0) -> dict[str, Path]:
    """
    The files of five canaries, pictures of the bank itself; of so many the wrong label is expected.
    """
    canaries = embed_canaries(list_source(canary_list(folder, wrong=wrong), GENERATED), fake_embedder())
    return write_canaries(folder, canaries, read_manifest(bank))


def canary_list(folder: Path, *, wrong: int = 0) -> Path:
    """
    The same five as a list of labelled pictures, which lie beside it.
    """
    source = a_source(folder / "canaries", reals=3, fakes=3)
    rows = [(f"real/{at:03d}.png", "ai_generated" if at < wrong else "real") for at in range(3)]
    rows += [(f"fake/mill/{at:03d}.png", "ai_generated") for at in range(2)]
    found = source / "canaries.csv"
    found.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    return found


class WatchedPlace:
    """
    A place with releases 1 and 2, of which 1 is active, and the watch of a worker that began with it.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **bank: object) -> None:
        monkeypatch.setattr("worker.instruments.load_encoder", lambda *_args, **_kwargs: FakeEncoder())
        self.root = folder / "place"
        self.banks = small_banks(folder)
        self.releases = Releases(DirectoryPlace(self.root))
        for path in self.banks:
            self.releases.publish(path)
        self.releases.activate("1", BY)
        self.settings = Settings.model_validate(
            {
                "bank": {"releases": str(self.root), "look_every_s": 0.01, **bank},
                "policy": {"path": str(ROOT / "config" / "policy.toml")},
                "decode": {"credentials": False},
            }
        )
        self.recorder = InMemoryRecorder()

    def open(self) -> Instruments:
        """
        What a worker that starts now opens.
        """
        return open_instruments(self.settings, self.recorder)

    def watch(self, instruments: Instruments | None = None) -> BankWatch:
        """
        A watch that was not started: ``follow`` is a look.
        """
        live = instruments or self.open()
        watch = BankWatch(self.settings, live, self.releases, clock=SystemClock(), recorder=self.recorder)
        watch.around(self.judge(live))
        return watch

    def judge(self, live: Instruments) -> BankJudge:
        """
        The judge that the pipeline is built with.
        """
        return BankJudge(
            live.bank, live.policy, live.versions("live"), SystemClock(), self.recorder, fitted=live.fitted
        )

    def counted(self, result: str) -> float:
        """
        How often an announced bank ended so.
        """
        return self.recorder.snapshot().get(f'bank_swaps_total{{result="{result}"}}', 0)

    def announced(self, **changes: object) -> BankControlV1:
        """
        The active record with changes, as somebody may write it by hand.
        """
        active = self.releases.active()
        assert active is not None
        return BankControlV1.model_validate_json(json.dumps(active.model_dump(mode="json") | changes))


class SignedPlace(WatchedPlace):
    """
    As ``WatchedPlace``; banks, releases and what holds are signed by a key that the worker and the commands trust.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **bank: object) -> None:
        public = make_key(folder / "key.pem")
        super().__init__(folder, monkeypatch, trusted_keys=(public,), **bank)
        self.key = read_key(folder / "key.pem")
        self.by = Issuer("a test", key=self.key)
        for path in (*self.banks, self.root / "1", self.root / "2"):
            sign_bank(path, self.key)
        self.releases = Releases(DirectoryPlace(self.root), [public])
        self.releases.activate("1", self.by)

    def forge(self, **changes: object) -> BankControlV1:
        """
        The active record with changes, as whoever can write the place but has no key puts it in its place.
        """
        forged = self.announced(**{"signatures": [], **changes})
        (self.root / "active.json").write_text(forged.model_dump_json())
        return forged
