"""
The main job on the field's real images: every odd file is answered, and the worker lives.
"""

from collections import Counter

import pytest

from schemas.errors import ErrorCode, Stage, stage_of
from schemas.verdict import TYPE
from tests.peers import assert_cloudevent, assert_valid
from tests.real_images_run import RealRun
from worker.stages.sniff import MEDIA_TYPES

pytestmark = [pytest.mark.servers, pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(600)]

ACCEPTED = {*MEDIA_TYPES, "MPO"}
"""Pillow's names of the formats that a worker takes; an MPO is a JPEG with more pictures behind the first."""

MORE_THAN_PILLOW = {"odd/metadata_extractor/da69c758_6d939393058de0579fca1bbf10ecff25.gif"}
"""
Pillow fails on these while it opens them, and we judge them.

The GIF breaks off while its frames are counted; its first, which is all that is judged, is whole.
"""


def test_every_odd_file_is_answered_and_the_worker_lives(real_run: RealRun) -> None:
    """
    Each of the 976 is decided, abstained or failed with a code of the decoder, and the worker goes on.
    """
    verdicts = {path: real_run.by_kafka[path].data for path in real_run.odd}
    statuses = Counter(verdict["outcome"]["status"] for verdict in verdicts.values())
    codes = {verdict["error"]["code"] for verdict in verdicts.values() if verdict["error"] is not None}

    assert len(verdicts) == 976
    assert set(statuses) == {"decided", "abstained", "failed"}
    assert codes == {code for code in ErrorCode if stage_of(code) is Stage.DECODE}
    assert real_run.afterwards in {"decided", "abstained"}
    assert real_run.worker_code == 0


def test_answers_to_odd_files_agree_with_pillow(real_run: RealRun) -> None:
    """
    What Pillow loads of the accepted formats is judged, what it loads of others is refused by format, all else fails.
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

    assert {path for path, *_ in surprises} == MORE_THAN_PILLOW, surprises


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
    Whatever an odd file did to its verdict, the CloudEvents SDK parses it and the exported schema allows it.
    """
    for path, outcome in real_run.by_kafka.items():
        event = assert_cloudevent(outcome.headers, outcome.value, outcome.key)
        data = assert_valid(TYPE, outcome.value)

        assert (event.get_type(), event.get_subject()) == (TYPE, path)
        assert data["content_id"] == path
