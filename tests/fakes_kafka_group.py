"""
The consumer group of ``InMemoryKafka``: who owns which partition, and in which generation.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.domain import Partition


class Membership(NamedTuple):
    """
    A place in the group: what the broker compares.
    """

    member_id: str
    generation: int


@dataclass(slots=True)
class Member:
    """
    One consumer: what it owns and where it reads on. ``generation`` is that of its last poll.
    """

    id: str
    generation: int = -1
    positions: dict[Partition, int] = field(default_factory=dict)


class InMemoryGroup:
    """
    A group that rebalances cooperatively: a partition is free for its next owner when its present one has let it go.

    Members take part by polling. ``rebalance`` and ``expel`` are for tests.
    """

    def __init__(
        self, changed: threading.Condition, committed: Mapping[Partition, int], partitions: Sequence[Partition]
    ) -> None:
        self._changed = changed
        self._committed = committed
        self._partitions = partitions
        self._members: dict[str, Member] = {}
        self._turn = 0
        self._joined = 0
        self.generation = 0

    def join(self) -> Member:
        """
        A new member; it owns nothing before its first poll.
        """
        with self._changed:
            self._joined += 1
            member = Member(f"member-{self._joined}")
            self._members[member.id] = member
            self._begin()
            return member

    def leave(self, member: Member) -> None:
        """
        Give everything back.
        """
        with self._changed:
            if self._members.pop(member.id, None) is not None:
                self._begin()

    def expel(self, member: Member) -> None:
        """
        The member did not answer in time: it finds out at its next poll, and joins as another.
        """
        self.leave(member)

    def rebalance(self) -> None:
        """
        Move partitions between members: each goes to the member after its present one.
        """
        with self._changed:
            self._turn += 1
            self._begin()

    def sync(self, member: Member) -> frozenset[Partition]:
        """
        What a poll does first: let go what is another's, take what is free. Tells what was let go.
        """
        if member.id not in self._members:
            lost = frozenset(member.positions)
            self._joined += 1
            member.id, member.positions = f"member-{self._joined}", {}
            self._members[member.id] = member
            self._begin()
            self._take_free(member)
            return lost
        if member.generation == self.generation:
            return frozenset()
        mine = self._targets()[member.id]
        revoked = frozenset(member.positions) - mine
        for partition in revoked:
            del member.positions[partition]
        if revoked:
            self._begin()
        self._take_free(member)
        return revoked

    def knows(self, membership: Membership) -> bool:
        """
        Whether the group would take offsets from there.
        """
        return membership.member_id in self._members and membership.generation == self.generation

    def _take_free(self, member: Member) -> None:
        owned = {partition for other in self._members.values() for partition in other.positions}
        for partition in sorted(self._targets()[member.id] - owned):
            member.positions[partition] = self._committed.get(partition, 0)
        member.generation = self.generation

    def _begin(self) -> None:
        self.generation += 1
        self._changed.notify_all()

    def _targets(self) -> dict[str, frozenset[Partition]]:
        members = sorted(self._members)
        return {
            member: frozenset(
                partition for at, partition in enumerate(self._partitions) if (at + self._turn) % len(members) == index
            )
            for index, member in enumerate(members)
        }
