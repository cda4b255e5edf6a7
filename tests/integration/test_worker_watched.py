"""
A worker on real Kafka and Redis, watched over HTTP from before it has loaded until it is told to stop.
"""

from collections.abc import Callable

import pytest

from tests.platform_side import inline, small_jpeg, upload_event
from tests.scraped import checked, scraped
from tests.servers import eventually
from tests.worker_rig import START_DEADLINE_S, WorkerRig

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

UPLOADS = 20


def test_a_worker_is_seen_from_start_to_stop(new_rig: Callable[..., WorkerRig]) -> None:
    """
    Alive at once, ready when it is a member of its group; it judges, and its lag goes to 0 in every partition.
    """
    rig = new_rig().configure("http.enabled=true", "http.port=0").create_topics(2)
    rig.publish(upload_event(f"seen-{number}", inline(small_jpeg(number))) for number in range(UPLOADS))
    worker = rig.start("one")
    port = worker.until_logged("http.listening", START_DEADLINE_S)["port"]
    assert checked(port, "/livez")[0] == 200
    assert checked(port, "/readyz")[0] == 503 or worker.logged("worker.started")

    worker.until_started()
    assert eventually(lambda: checked(port, "/readyz")[0] == 200, deadline_s=60)
    topic = rig.settings.kafka.topics.uploads

    def caught_up() -> bool:
        found = scraped(port)
        lags = [one for one in found.samples if one.name == "touchstone_consumer_lag" and one.value == 0]
        ages = [one for one in found.samples if one.name == "touchstone_oldest_uncommitted_seconds" and one.value == 0]
        return (
            found.value("touchstone_events_consumed_total") == UPLOADS
            and found.value("touchstone_in_flight") == 0
            and {one.labels["partition"] for one in lags} == {"0", "1"}
            and {one.labels["partition"] for one in ages} == {"0", "1"}
        )

    assert eventually(caught_up, deadline_s=60), rig.text()
    found = scraped(port)
    assert sum(one.value for one in found.samples if one.name == "touchstone_verdicts_total") == UPLOADS
    assert found.labels("touchstone_consumer_lag", "topic") == {topic}
    assert found.value("touchstone_commits_total", result="ok") >= 1
    assert found.value("touchstone_ready") == 1
    status, said = checked(port, "/info")
    assert (status, said["partitions"]) == (200, [f"{topic}-0", f"{topic}-1"])
    assert worker.stop() == 0
    last = worker.until_logged("worker.stopped")
    assert last["metrics"]["events_consumed_total"] == UPLOADS


def test_a_port_in_use_ends_the_start(new_rig: Callable[..., WorkerRig]) -> None:
    """
    The second worker on a port says so and leaves, before it has loaded anything.
    """
    rig = new_rig().configure("http.enabled=true", "http.port=0").create_topics(1)
    first = rig.start("one")
    port = first.until_logged("http.listening", START_DEADLINE_S)["port"]
    second = rig.start("two", f"http.port={port}")

    assert second.wait() == 3
    assert f"http.port {port}: cannot listen there" in second.text()
    first.until_started()
    assert first.stop() == 0
