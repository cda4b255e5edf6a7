"""
Which verdicts the two sides of a comparison are, and reading them: each file and each topic once, for both sides.

Files and topics themselves are read by ``worker.adapters``; what is read is joined in ``joining.py``.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from schemas.verdict import ImageVerdictV1, Mode
from worker.adapters.verdict_lines import ReadSoFar, read_verdict_lines
from worker.diff.joining import Joined, SideName, replay_of
from worker.errors import CannotStart, ConfigInvalid

Kind = Literal["file", "topic", "run"]

MODES: Final = get_args(Mode)
_MOST_TOLD: Final = 5
_FILTER: Final = re.compile(r"(?P<place>.*)#mode=(?P<mode>[^#]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SideSpec:
    """
    One side as it was asked for: a file, a topic, or the run of some topics; in one mode, or in any.
    """

    text: str
    kind: Kind
    name: str
    mode: str | None

    def takes(self, verdict: ImageVerdictV1) -> bool:
        """
        Whether a verdict of its file or topics belongs to it.
        """
        return self.mode in {None, verdict.mode} and (self.kind != "run" or verdict.run_id == self.name)

    def sources(self, run_topics: Sequence[str]) -> list["Source"]:
        """
        Where its verdicts are to be looked for.
        """
        if self.kind == "run":
            return [Source("topic", topic) for topic in run_topics]
        return [Source(self.kind, self.name)]


@dataclass(frozen=True, slots=True)
class Source:
    """
    A file or a topic that holds verdicts.
    """

    kind: Literal["file", "topic"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


ReadTopic = Callable[[str, ReadSoFar], Iterator[ImageVerdictV1]]
"""How a topic of this name is read; given the name, and whom to tell how far it is."""


def parse_side(text: str) -> SideSpec:
    """
    ``FILE``, ``topic:NAME`` or ``run:RUN_ID``, each with ``#mode=MODE`` after it or not; raises ``ConfigInvalid``.
    """
    place, mode = text, None
    if (filtered := _FILTER.fullmatch(text)) is not None:
        place, mode = filtered["place"], filtered["mode"]
        if mode not in MODES:
            raise ConfigInvalid(f"{text!r} asks for mode {mode!r}; expected one of {', '.join(MODES)}")
    for kind in ("topic", "run"):
        if place.startswith(f"{kind}:"):
            name = place.removeprefix(f"{kind}:")
            if not name:
                raise ConfigInvalid(f"{text!r} names no {kind}; expected {kind}:NAME")
            return SideSpec(text, kind, name, mode)
    if not place:
        raise ConfigInvalid(f"{text!r} names nothing; expected a file, topic:NAME or run:RUN_ID")
    return SideSpec(text, "file", place, mode)


def read_sides(
    store: Joined,
    sides: Mapping[SideName, SideSpec],
    run_topics: Sequence[str],
    *,
    read_topic: ReadTopic,
    report: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
) -> dict[SideName, set[str]]:
    """
    Put the verdicts of both sides into ``store``; of which replays each side has verdicts.

    Raises ``CannotStart`` for what cannot be read, and for a side that has no verdict at all.
    """
    wanted: dict[Source, list[SideName]] = {}
    for side, spec in sides.items():
        for source in spec.sources(run_topics):
            wanted.setdefault(source, []).append(side)
    taken: Counter[SideName] = Counter()
    replays: dict[SideName, set[str]] = {side: set() for side in sides}
    met: dict[Source, Counter[tuple[str, str | None]]] = {}
    for source, of_sides in wanted.items():
        met[source] = Counter()
        for verdict in _verdicts(source, read_topic, report):
            met[source][verdict.mode, verdict.run_id] += 1
            for side in of_sides:
                if sides[side].takes(verdict):
                    store.add(side, verdict)
                    taken[side] += 1
                    replays[side] |= {run_id} if (run_id := replay_of(verdict)) is not None else set()
    for side, spec in sides.items():
        if not taken[side]:
            raise CannotStart(_empty(side, spec, {source: met[source] for source in spec.sources(run_topics)}))
    return replays


def _verdicts(
    source: Source, read_topic: ReadTopic, report: Callable[[str, int, int], None]
) -> Iterator[ImageVerdictV1]:
    def progress(done: int, total: int) -> None:
        report(f"reading {source}", done, total)

    if source.kind == "topic":
        return read_topic(source.name, progress)
    return read_verdict_lines(Path(source.name), progress=progress)


def _empty(side: SideName, spec: SideSpec, met: Mapping[Source, Counter[tuple[str, str | None]]]) -> str:
    wanted = [
        f"of run {spec.name}" if spec.kind == "run" else "",
        f"in mode {spec.mode}" if spec.mode is not None else "",
    ]
    asked = " ".join(["no verdict", *filter(None, wanted)])
    found = "; ".join(f"{source} has {_told(counts)}" for source, counts in met.items()) or "no topic was looked into"
    return (
        f"{side.upper()} ({spec.text}) is empty: found {asked} ({found}), expected at least one. "
        "Check the name, the mode and --from; --topic says where the verdicts of a run are"
    )


def _told(counts: Counter[tuple[str, str | None]]) -> str:
    if not counts:
        return "no verdict"
    kinds = [
        f"{count} in mode {mode}" + (f" of run {run_id}" if run_id is not None else "")
        for (mode, run_id), count in counts.most_common(_MOST_TOLD)
    ]
    return ", ".join(kinds) + (f" and {len(counts) - _MOST_TOLD} more kinds" if len(counts) > _MOST_TOLD else "")
