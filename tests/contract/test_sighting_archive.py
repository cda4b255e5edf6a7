"""
What every archive of sightings must do alike: in memory, in a file that processes share, and in a real topic.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes_archive import Archived, InMemoryArchive
from tests.sightings import DIM, SHIFT, a_hash, a_scope, a_sighting, same
from worker.adapters.kafka_sightings import KafkaSightings
from worker.adapters.kafka_topics import topics_of
from worker.adapters.sighting_codec import SightingScope
from worker.adapters.sighting_file import SightingFile
from worker.adapters.system_clock import SystemClock
from worker.adapters.topic_plan import WantedTopic, plan_topics
from worker.dev.servers import KafkaAt
from worker.ports import SightingArchive
from worker.settings.tree import KafkaSettings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import ViewSpec

Archives = Callable[[SightingScope], SightingArchive]
"""An archive for a worker or a replay of this scope, opened now; all of one test share what they keep."""

CAT, DOG, EEL = a_hash("cat"), a_hash("dog"), a_hash("eel")


@pytest.fixture(params=["memory", "file", pytest.param("topic", marks=pytest.mark.servers)])
def archives(request: pytest.FixtureRequest, topic_name: str, tmp_path: Path) -> Iterator[Archives]:
    """
    Each kind of archive in turn, empty.
    """
    archived: Archived = {}
    with ExitStack() as stack:
        settings = KafkaSettings()
        if request.param == "topic":
            at: KafkaAt = request.getfixturevalue("kafka")
            settings = KafkaSettings.model_validate(
                {"bootstrap_servers": at.bootstrap_servers, "topics": {"embeddings": topic_name}}
            )
            topics = stack.enter_context(topics_of(settings))
            topics.apply(plan_topics([WantedTopic(topic_name, 3, 1, {"cleanup.policy": "compact"})], {}))
            stack.callback(topics.delete, [topic_name])

        def archive(scope: SightingScope) -> SightingArchive:
            if request.param == "memory":
                return InMemoryArchive(scope, archived=archived)
            opened: SightingFile | KafkaSightings
            if request.param == "file":
                path = tmp_path / "embeddings.sqlite"
                opened = SightingFile(path, scope, recorder=InMemoryRecorder(), clock=SystemClock(), retention_s=3600)
            else:
                opened = KafkaSightings(settings, scope, recorder=InMemoryRecorder())
            return stack.enter_context(closing(opened))

        yield archive


def test_an_empty_archive_knows_nothing(archives: Archives) -> None:
    """
    What is unknown is absent, and nothing is no question.
    """
    archive = archives(a_scope())

    assert {} == archive.recall([CAT, DOG])
    assert {} == archive.recall([])


def test_what_was_kept_is_recalled_bit_for_bit(archives: Archives) -> None:
    """
    Each sighting comes back equal to the last bit, with and without a shift, by whoever opens the archive afterwards.
    """
    kept = {CAT: a_sighting(CAT), DOG: a_sighting(DOG, shift=SHIFT)}
    archives(a_scope()).keep(kept)
    recalled = archives(a_scope()).recall([EEL, DOG, CAT, DOG])

    assert kept.keys() == recalled.keys()
    assert all(same(recalled[content_hash], kept[content_hash]) for content_hash in kept)


@pytest.mark.parametrize(
    "other",
    [
        a_scope("another encoder"),
        a_scope("another encoder", dim=DIM * 2),
        SightingScope(a_scope().fingerprint_id, DIM, a_hash("other rules")),
        replace(a_scope(), views=ViewSpec(native_crops=1).sha256),
    ],
    ids=["encoder", "dimension", "decode rules", "views"],
)
def test_other_scopes_are_not_seen(archives: Archives, other: SightingScope) -> None:
    """
    Of another encoder, other views or other rules of decoding nothing is known, and nobody is harmed.
    """
    archives(a_scope()).keep({CAT: a_sighting(CAT)})
    foreign = archives(other).recall([CAT])
    archives(other).keep({DOG: a_sighting(DOG, dim=other.dim)})
    own = archives(a_scope()).recall([CAT, DOG])

    assert {} == foreign
    assert [CAT] == list(own)


def test_the_latest_counts_but_a_shift_stays(archives: Archives) -> None:
    """
    A later sighting takes the place of an earlier one, except one without its shift that of one with.
    """
    archive = archives(a_scope())
    archive.keep({CAT: a_sighting(CAT), DOG: a_sighting(DOG, shift=SHIFT)})
    archive.keep({CAT: a_sighting(CAT, seed=1), DOG: a_sighting(DOG, seed=1)})
    archive.keep({EEL: a_sighting(EEL)})
    archive.keep({EEL: a_sighting(EEL, seed=1, shift=SHIFT)})
    recalled = archives(a_scope()).recall([CAT, DOG, EEL])

    assert same(recalled[CAT], a_sighting(CAT, seed=1))
    assert same(recalled[DOG], a_sighting(DOG, shift=SHIFT))
    assert same(recalled[EEL], a_sighting(EEL, seed=1, shift=SHIFT))


def test_what_was_forgotten_is_gone_for_every_encoder(archives: Archives) -> None:
    """
    Also with its shift, and also what another encoder saw; the rest stays, and it may be kept anew.
    """
    one, other = archives(a_scope()), archives(a_scope("another encoder"))
    one.keep({CAT: a_sighting(CAT, shift=SHIFT), DOG: a_sighting(DOG)})
    one.keep({EEL: a_sighting(EEL)})
    other.keep({EEL: a_sighting(EEL)})
    gone = one.forget([CAT, EEL, CAT])
    after = [archives(scope).recall([CAT, DOG, EEL]) for scope in (a_scope(), a_scope("another encoder"))]
    one.keep({CAT: a_sighting(CAT)})

    assert gone >= 2
    assert [{DOG}, set()] == [set(found) for found in after]
    assert {CAT, DOG} == set(archives(a_scope()).recall([CAT, DOG, EEL]))


def test_nothing_may_be_kept_or_forgotten(archives: Archives) -> None:
    """
    An empty set changes nothing and fails nothing.
    """
    archive = archives(a_scope())
    archive.keep({CAT: a_sighting(CAT)})
    archive.keep({})
    gone = archive.forget([])

    assert 0 == gone
    assert [CAT] == list(archives(a_scope()).recall([CAT]))
