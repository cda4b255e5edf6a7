"""
The main job on the field's real images: every odd file is answered, the worker lives, and ``touchstone scan`` agrees.

All in one file, so that it is run once, however many processes the tests have.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from schemas.dead_letter import TYPE as DEAD_LETTER
from schemas.errors import ErrorCode, Stage, stage_of
from schemas.verdict import TYPE
from tests.peers import assert_cloudevent, assert_valid
from tests.real_images_run import RealRun
from worker.adapters.file_source import list_files
from worker.stages.letters import has_letter
from worker.stages.sniff import MEDIA_TYPES

pytestmark = [pytest.mark.servers, pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(1200)]

ACCEPTED = {*MEDIA_TYPES, "MPO"}
"""Pillow's names of the formats that a worker takes; an MPO is a JPEG with more pictures behind the first."""

CONTRADICTORY = {
    "odd/pillow/0da68015_sequence_reorder.png",
    "odd/pillow/340c7ece_sequence_gap.png",
    "odd/pillow/45ad1e3a_sequence_repeat_chunk.png",
    "odd/pillow/59068aa0_chunk_multi_actl.png",
    "odd/pillow/95196156_sequence_start.png",
    "odd/pillow/a50d974c_chunk_repeat_fctl.png",
    "odd/pillow/b0227c0f_chunk_no_fdat.png",
    "odd/pillow/f36dbc29_syntax_num_frames_low.png",
    "odd/pillow/fc20e7eb_sequence_fdat_fctl.png",
}
"""
Pillow opens these animations and shows a still, fewer frames, or fails at a later one: DECODE_FAILED.
"""

CUT_BEHIND_THE_FIRST = {"odd/metadata_extractor/bc90e1e8_adf6f850b13dff73ebb22862c6ab028b.gif"}
"""Pillow opens it, and a later frame ends early: DECODE_TRUNCATED."""

LARGER_BEHIND_THE_FIRST = {
    "odd/pillow/e6c8a34e_decompression_bomb_extents.gif",
    "odd/metadata_extractor/89691826_ce774930ac70449f38a18789c70095b8.gif",
}
"""
Pillow opens these, and a later frame would enlarge the picture beyond the pixels that are allowed: DECODE_BOMB.

Both show 100 or 120 pixels a side at first. The second frame of the one would enlarge it to 65635 x 65635; what stands
as the sixth frame of the other, behind 642 bytes of rubbish, to 5439 x 29693.
"""

HANG_OR_CRASH = {ErrorCode.DECODE_TIMEOUT, ErrorCode.DECODE_CRASHED}
"""What becomes of a file over which a decoder hangs or dies: none of these, with the decoders that we ship."""

SCORE_TOLERANCE = 2e-3
"""
Companions in a micro-batch move features by 1e-7; that may flip the last bit of a component's float16, which moves a
cosine by up to 1e-4, and a vote at temperature 0.07 by ten times that.
"""


def decision(verdict: dict[str, Any]) -> dict[str, Any]:
    """
    What is decided, why, and of which bytes: whatever is no measured number.
    """
    outcome, error = verdict["outcome"], verdict["error"]
    return {
        "outcome": [outcome["status"], outcome["label"], outcome["action"]],
        "reasons": [reason["code"] for reason in outcome["reasons"]],
        "thresholds": verdict["thresholds"],
        "image": verdict["image"],
        "error": None if error is None else (error["code"], error["class"], error["stage"], error["detail"]),
        "versions": verdict["versions"],
    }


def numbers(verdict: dict[str, Any]) -> list[float]:
    """
    Score, margin and every component; none for a failed verdict.
    """
    outcome = verdict["outcome"]
    if verdict["error"] is not None:
        return []
    return [outcome["score"], outcome["margin"], *(component["value"] for component in verdict["scores"])]


def test_every_odd_file_is_answered_and_the_worker_lives(real_run: RealRun) -> None:
    """
    Each of the 976 is decided, abstained or failed with a code of the decoder, and the worker goes on.
    """
    verdicts = {path: real_run.by_kafka[path].data for path in real_run.odd}
    statuses = Counter(verdict["outcome"]["status"] for verdict in verdicts.values())
    codes = {verdict["error"]["code"] for verdict in verdicts.values() if verdict["error"] is not None}

    assert len(verdicts) == 976
    assert set(statuses) == {"decided", "abstained", "failed"}
    assert codes == {code for code in ErrorCode if stage_of(code) is Stage.DECODE} - HANG_OR_CRASH
    assert real_run.afterwards in {"decided", "abstained"}
    assert real_run.worker_code == 0


def test_answers_to_odd_files_agree_with_pillow(real_run: RealRun) -> None:
    """
    What Pillow loads of the accepted formats is judged, what it loads of others is refused by format, all else fails.

    Apart from those that are named above.
    """
    surprises = []
    for path, row in real_run.odd.items():
        error = real_run.by_kafka[path].data["error"]
        loads, accepted = row["pillow_result"] == "ok", row["pillow_format"] in ACCEPTED
        if loads and not accepted:
            as_expected = error is not None and error["code"] == ErrorCode.FORMAT_UNSUPPORTED
        else:
            as_expected = (error is None) == loads
        if not as_expected:
            surprises.append((path, row["pillow_format"], row["pillow_result"], error))

    found = {path: None if error is None else error["code"] for path, _format, _result, error in surprises}

    assert found == {
        **dict.fromkeys(LARGER_BEHIND_THE_FIRST, ErrorCode.DECODE_BOMB),
        **dict.fromkeys(CONTRADICTORY, ErrorCode.DECODE_FAILED),
        **dict.fromkeys(CUT_BEHIND_THE_FIRST, ErrorCode.DECODE_TRUNCATED),
    }, surprises


def test_every_image_of_the_sample_is_judged(real_run: RealRun) -> None:
    """
    No photograph and no generated image fails; those that are references themselves are known by their bytes.
    """
    verdicts = {path: real_run.by_kafka[path].data for path in real_run.sample}
    failed = {path: verdict["error"] for path, verdict in verdicts.items() if verdict["error"] is not None}
    exact = {
        path
        for path, verdict in verdicts.items()
        if verdict["evidence"] and any(neighbour["exact"] for neighbour in verdict["evidence"]["neighbours"])
    }

    assert len(verdicts) > 190
    assert failed == {}
    assert {path: row["sha256"] for path, row in real_run.sample.items()} == {
        path: verdict["image"]["sha256"] for path, verdict in verdicts.items()
    }
    assert exact == real_run.references & real_run.sample.keys()


def test_peers_read_every_message_of_the_run(real_run: RealRun) -> None:
    """
    Whatever an odd file did to its outcome, the CloudEvents SDK parses it and the exported schema allows it.
    """
    for event_type, outcomes in ((TYPE, real_run.by_kafka), (DEAD_LETTER, real_run.letters)):
        for path, outcome in outcomes.items():
            event = assert_cloudevent(outcome.headers, outcome.value, outcome.key)
            data = assert_valid(event_type, outcome.value)

            assert (event.get_type(), event.get_subject()) == (event_type, path)
            assert data["content_id"] == path


def test_failures_that_an_operator_may_mend_have_a_letter(real_run: RealRun) -> None:
    """
    Beside a failed verdict lies a dead letter with the same error where its class says so, and beside no other.
    """
    errors = {path: outcome.data["error"] for path, outcome in real_run.by_kafka.items()}
    mendable = {path: error for path, error in errors.items() if error is not None and has_letter(error["code"])}
    told = ("code", "class", "stage")

    assert mendable
    assert {path: [error[name] for name in told] for path, error in mendable.items()} == {
        path: [letter.data["error"][name] for name in told] for path, letter in real_run.letters.items()
    }


def test_scan_answers_each_file_with_one_line_in_order(real_run: RealRun, shared_data: Path) -> None:
    """
    One verdict of the contract per file, in the order of the files, also for those that fail; the exit code says so.
    """
    files = list_files([shared_data / "odd", *(shared_data / path for path in real_run.sample)])
    for line in real_run.scanned:
        assert_valid("image.verdict.v1", line)

    assert [str(file) for file in files] == [line["content_id"] for line in real_run.scanned]
    assert {line["mode"] for line in real_run.scanned} == {"scan"}
    assert any(line["outcome"]["status"] == "failed" for line in real_run.scanned)
    assert real_run.scan_code == 1


def test_scan_decides_as_the_worker_does(real_run: RealRun, shared_data: Path) -> None:
    """
    Status, label, action, reasons, error and image facts are the same, file by file, as on the way through Kafka.

    Scores differ by no more than a micro-batch's companions may move them.
    """
    by_scan = real_run.by_scan(shared_data)
    by_kafka = {path: outcome.data for path, outcome in real_run.by_kafka.items()}
    differences = {
        path: (decision(verdict), decision(by_scan[path]))
        for path, verdict in by_kafka.items()
        if decision(verdict) != decision(by_scan[path])
    }

    assert by_kafka.keys() == by_scan.keys()
    assert differences == {}
    for path, verdict in by_kafka.items():
        assert numbers(verdict) == pytest.approx(numbers(by_scan[path]), abs=SCORE_TOLERANCE)
