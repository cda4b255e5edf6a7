"""
The list of references of one bank that must not judge: what it leaves out, what is refused, and what verdicts name.
"""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from structlog.testing import capture_logs

from tests.bank_builders import REAL, a_source, build_small
from tests.conftest import ROOT
from tests.fake_encoder import FakeEncoder
from tests.release_worlds import BY, canaries_of
from worker.bank import quarantine as module
from worker.bank.files import load_bank
from worker.bank.leaving_out import Without
from worker.bank.quarantine import Quarantine, Quarantined, read_quarantine, write_quarantine
from worker.bank.releases import Issuer
from worker.errors import BankInvalid, CannotStart, ConfigInvalid
from worker.instruments import Instruments, open_instruments
from worker.operation.shadowing import open_candidate
from worker.replay.order import revised
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.whole_banks import configured_bank

MILL = Without(generators=frozenset({"mill"}))


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    Six reals and four fakes of mill, and the fake encoder for whoever starts.
    """
    monkeypatch.setattr("worker.instruments.load_encoder", lambda *_args, **_kwargs: FakeEncoder())
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    return tmp_path / "bank"


def settings_of(bank: Path, **further: object) -> Settings:
    """
    A worker with this bank and a list beside it.
    """
    return Settings.model_validate(
        {
            "bank": {"path": str(bank), "quarantine_path": str(bank.parent / "list.json"), **further},
            "policy": {"path": str(ROOT / "config" / "policy.toml")},
            "decode": {"credentials": False},
        }
    )


def opened(bank: Path, names: Without) -> Instruments:
    """
    What a worker starts with when these names are on the list.
    """
    write_quarantine(bank.parent / "list.json", Quarantine(bank="small").with_more(names, BY))
    return open_instruments(settings_of(bank), InMemoryRecorder())


def with_canaries(bank: Path, folder: Path, *, wrong: int = 0) -> None:
    """
    Five canaries in the bank's directory.
    """
    for name, path in canaries_of(bank, folder, wrong=wrong).items():
        (bank / name).write_bytes(path.read_bytes())


def few_reals(bank: Path) -> Without:
    """
    All reals but one, so that reals are no longer judged as such.
    """
    return Without(entries=frozenset([entry.id for entry in load_bank(bank).entries if entry.label == REAL][:5]))


def test_a_worker_starts_without_what_is_listed(bank: Path) -> None:
    """
    By id, by sha256 or by source: the same references are the same bank, which is another than the whole one.
    """
    entry = load_bank(bank).entries.entry(0)
    whole = opened(bank, Without()).bank.identity
    by_id, by_sha256 = (
        opened(bank, Without(entries=frozenset({name}))).bank.identity for name in (entry.id, entry.sha256)
    )

    assert by_id == by_sha256
    assert (whole.index, whole.entries, by_id.entries) == ("flat", 10, 9)
    assert by_id.index.startswith("flat without ")
    assert by_id.manifest_sha256 == whole.manifest_sha256


def test_all_of_a_source_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As a CSV of references names it.
    """
    monkeypatch.setattr("worker.instruments.load_encoder", lambda *_args, **_kwargs: FakeEncoder())
    source = a_source(tmp_path / "source")
    rows = [(f"real/{at:03d}.png", "real", "good" if at else "poisoned") for at in range(6)]
    rows += [(f"fake/mill/{at:03d}.png", "ai_generated", "good") for at in range(4)]
    listed = "".join(f"{path},{label},{origin}\n" for path, label, origin in rows)
    (source / "all.csv").write_text(f"path,label,source\n{listed}")
    build_small(source / "all.csv", tmp_path / "bank")

    assert opened(tmp_path / "bank", Without(sources=frozenset({"poisoned"}))).bank.identity.entries == 9


def test_a_label_without_references_is_refused(bank: Path) -> None:
    """
    Nothing could be judged by what is left.
    """
    with pytest.raises(BankInvalid, match="leaves no reference of label ai_generated"):
        opened(bank, MILL)


def test_a_name_that_the_bank_does_not_have_is_warned_of(bank: Path) -> None:
    """
    A version that was built without it must start, and a mistyped name must not pass unseen.
    """
    with capture_logs() as lines:
        found = opened(bank, Without(entries=frozenset({"mistyped"})))
    told = {line["event"]: line for line in lines}

    assert found.bank.identity.index == "flat"
    assert told["bank.quarantine_unknown"]["names"] == ["mistyped"]
    assert (told["bank.quarantined"]["names"], told["bank.quarantined"]["references"]) == (1, 0)


def test_a_list_that_is_not_there_keeps_the_worker_from_starting(bank: Path) -> None:
    """
    Otherwise a mount that is lost would bring back what was found bad.
    """
    with pytest.raises(BankInvalid, match=r"list\.json cannot be read .* would judge again"):
        open_instruments(settings_of(bank), InMemoryRecorder())


def test_a_list_of_another_bank_is_refused(bank: Path) -> None:
    """
    Ids of one bank say nothing of another.
    """
    write_quarantine(bank.parent / "list.json", Quarantine(bank="other"))

    with pytest.raises(ConfigInvalid, match="is of bank 'other', this bank is 'small'"):
        open_instruments(settings_of(bank), InMemoryRecorder())


def test_releases_have_no_such_list(tmp_path: Path) -> None:
    """
    Theirs is in the control record; two would contradict each other.
    """
    with pytest.raises(ValidationError, match="quarantine_path is for one bank"):
        settings_of(tmp_path / "bank", path=None, releases=str(tmp_path))


def test_canaries_that_lean_on_what_is_listed_only_warn(bank: Path, tmp_path: Path) -> None:
    """
    A reference that was found bad goes at once, and its worker starts: the whole bank judges them as expected.
    """
    with_canaries(bank, tmp_path)
    with capture_logs() as lines:
        found = opened(bank, few_reals(bank))
    (told,) = (line for line in lines if line["event"].startswith("bank.canaries_"))

    assert 5 == found.bank.identity.entries
    assert ("bank.canaries_missed", "warning", 5) == (told["event"], told["log_level"], told["canaries"])
    assert told["missed"] == len(told["worst"]) > 0


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("agreement", [1.0, 0.8])
def test_the_whole_bank_must_judge_its_canaries_as_expected(
    bank: Path, tmp_path: Path, agreement: float, *, listed: bool
) -> None:
    """
    Those that lie in its directory; what is listed excuses none of them, and as many may miss as are agreed to.
    """
    with_canaries(bank, tmp_path, wrong=1)
    names = few_reals(bank) if listed else Without()
    write_quarantine(tmp_path / "list.json", Quarantine(bank="small").with_more(names, BY))
    given = settings_of(bank, canary_agreement=agreement)

    if agreement == 1:
        with pytest.raises(BankInvalid, match=r"4 of 5 canaries were judged as expected.*real/000\.png"):
            open_instruments(given, InMemoryRecorder())
    else:
        assert open_instruments(given, InMemoryRecorder()).bank.identity.entries == (5 if listed else 10)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    """
    With reasons and names; one by hand needs no checksum, and may be a link, as in a mounted ConfigMap.
    """
    listed = Quarantine(bank="small").with_more(MILL, Issuer("ann", "mislabelled"))
    (tmp_path / "folder").mkdir()
    write_quarantine(tmp_path / "folder" / "list.json", listed)
    (tmp_path / "by-hand.json").write_text(
        '{"bank": "small", "quarantined": [{"kind": "entry", "name": "e1", "reason": "stolen"}]}'
    )
    (tmp_path / "link.json").symlink_to(tmp_path / "by-hand.json")
    [by_hand] = read_quarantine(tmp_path / "link.json").quarantined

    assert read_quarantine(tmp_path / "folder" / "list.json") == listed
    assert (listed.quarantined[0].by, listed.quarantined[0].reason) == ("ann", "mislabelled")
    assert by_hand == Quarantined(kind="entry", name="e1", reason="stolen")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_takes_a_name_off(tmp_path: Path, data: st.DataObject) -> None:
    """
    Whatever bit of the file flips: it is refused, or it says the same.
    """
    listed = Quarantine(bank="small").with_more(MILL, Issuer("ann", "mislabelled", None))
    path = tmp_path / "list.json"
    write_quarantine(path, listed)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        found = read_quarantine(path)
    except BankInvalid:
        return

    assert found.without() == listed.without()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "it is no object"),
        ("{", "it is no JSON"),
        ("{}", "bank: Field required"),
        ('{"bank": "small", "other": 1}', "other: Extra inputs"),
        ('{"bank": "small", "quarantined": [{"kind": "licence", "name": "x"}]}', "quarantined.0.kind"),
        ('{"bank": "small", "quarantined": [{"kind": "entry", "name": ""}]}', "quarantined.0.name"),
        (
            '{"bank": "small", "quarantined": [{"kind": "entry", "name": "x"}, {"kind": "entry", "name": "x"}]}',
            "entry 'x' is named twice",
        ),
        ('{"bank": "small", "sha256": "00"}', "its sha256 is 00, expected "),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """
    Naming the file, what is wrong with it, and what that would bring back.
    """
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(BankInvalid, match=r"list\.json cannot be followed") as refused:
        read_quarantine(tmp_path / "list.json")

    assert said in str(refused.value)


def test_a_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In names when it is written and read, and in bytes before it is read.
    """
    full = [{"kind": "entry", "name": f"e{at}"} for at in range(module.MAX_NAMES + 1)]
    (tmp_path / "list.json").write_text(json.dumps({"bank": "small", "quarantined": full}))
    most = Quarantine(bank="small").with_more(Without(frozenset(one["name"] for one in full[1:])), BY)
    with pytest.raises(BankInvalid, match="at most 10000 items"):
        read_quarantine(tmp_path / "list.json")
    with pytest.raises(ConfigInvalid, match="would have 10001 names"):
        most.with_more(MILL, BY)
    monkeypatch.setattr(module, "MAX_QUARANTINE_BYTES", 100)
    with pytest.raises(BankInvalid, match="expected at most 100; nothing of it was read"):
        read_quarantine(tmp_path / "list.json")


def test_a_list_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """
    With the path, and nothing is left beside it.
    """
    (tmp_path / "list.json").mkdir()
    with pytest.raises(CannotStart, match=r"list\.json cannot be written"):
        write_quarantine(tmp_path / "list.json", Quarantine(bank="small"))

    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]


def test_a_list_whose_folder_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    """
    A mount that was lost has the old one: what that disables would judge again.
    """
    (tmp_path / "link.json").symlink_to(tmp_path / "mount" / "list.json")
    for path in (tmp_path / "mount" / "list.json", tmp_path / "link.json"):
        with pytest.raises(CannotStart, match=r"mount, the folder of .*, is not there: where it is a mount"):
            write_quarantine(path, Quarantine(bank="small"))

    assert not (tmp_path / "mount").exists()


def test_names_are_taken_off_one_by_one() -> None:
    """
    The first reason of a name stays when it is given again, and one that is not listed is an error.
    """
    entry = Without(entries=frozenset({"e1"}))
    first = Quarantine(bank="small").with_more(entry, Issuer("ann", "stolen"))
    both = first.with_more(entry.more(MILL), Issuer("bob", "again"))

    assert [(one.kind, one.name, one.by) for one in both.quarantined] == [
        ("entry", "e1", "ann"),
        ("generator", "mill", "bob"),
    ]
    assert both.with_less(MILL) == first
    with pytest.raises(ConfigInvalid, match="'mill' is not disabled in bank small"):
        first.with_less(MILL)


def test_others_that_judge_by_this_bank_leave_the_same_out(bank: Path, tmp_path: Path) -> None:
    """
    A candidate policy beside the live one, and a replay; a bank that is named instead of it is tried as it is.
    """
    gone = Without(entries=frozenset({load_bank(bank).entries.entry(0).id}))
    live = opened(bank, gone)
    shadow = {"enabled": True, "name": "x", "policy_path": str(ROOT / "config" / "policy.toml")}
    beside = Settings.model_validate(settings_of(bank).model_dump() | {"shadow": shadow})
    build_small(tmp_path / "source", tmp_path / "other", id="other")
    same, other = (
        revised(settings_of(bank), bank=path, policy=None, model=None) for path in (bank, tmp_path / "other")
    )

    assert open_candidate(beside, live).bank.identity == live.bank.identity
    assert configured_bank(same).stored.identity("flat") == live.bank.identity
    assert configured_bank(other).stored.without is None


def test_strangers_are_told_by_kind(bank: Path) -> None:
    """
    A generator's name does not pass for an entry's or a source's.
    """
    entries = load_bank(bank).entries
    wanted = Without(frozenset({"mill", entries.entry(0).sha256}), frozenset({"mill"}), frozenset({"mill"}))

    assert wanted.strangers(entries) == Without(frozenset({"mill"}), frozenset(), frozenset({"mill"}))
