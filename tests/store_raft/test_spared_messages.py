"""What is not said because it would say nothing new, and that it is said in time all the same."""

from __future__ import annotations

from typing import Any

from test_guard import SETTINGS, Guarded, entry

from raftkube.store.raft import messages as msg

QUIET_S = SETTINGS.heartbeat_s / 2


def acknowledgements(sent: list[tuple[str, list[Any]]]) -> list[list[Any]]:
    return [message for _, message in sent if message[0] == msg.APPENDED]


def appends(sent: list[tuple[str, list[Any]]], name: str) -> list[list[Any]]:
    return [message for to, message in sent if to == name and message[0] == msg.APPEND]


def test_a_commit_note_is_not_answered_again_but_a_heartbeat_is() -> None:
    member = Guarded()
    first = acknowledgements(member.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(2, 1)]))
    assert first == [[msg.APPENDED, 1, 3, False, True]]
    assert acknowledgements(member.receive("n2", msg.APPEND, 1, 2, 2, 1, [])) == []
    assert member.replica.core.commit_index == 2  # heard all the same
    member.clock.now += 1.1 * QUIET_S
    assert acknowledgements(member.receive("n2", msg.APPEND, 1, 2, 2, 1, [])) == first


def test_what_is_new_is_always_answered() -> None:
    member = Guarded()
    member.receive("n2", msg.APPEND, 1, 1, 1, 0, [entry(2, 1)])
    assert acknowledgements(member.receive("n2", msg.APPEND, 1, 2, 2, 1, [entry(3, 1)]))
    assert acknowledgements(member.receive("n2", msg.APPEND, 1, 2, 9, 1, []))[0][3]  # a reset
    assert acknowledgements(member.receive("n2", msg.APPEND, 2, 2, 3, 1, []))  # another term
    assert acknowledgements(member.receive("n3", msg.APPEND, 3, 2, 3, 1, []))  # another leader


def test_a_commit_note_leaves_at_once_only_when_no_append_will_say_it() -> None:
    member = Guarded()
    term = member.lead()
    replica = member.replica
    last = replica.journal.last_index
    for name in ("n2", "n3"):
        member.receive(name, msg.APPENDED, term, last + 1, False, True)
    noted = appends(member.sent, "n4")
    assert [(append[2], append[5]) for append in noted] == [(last, [])]  # nothing else is on its way

    def propose(size: int) -> None:
        replica.proposals.add([b"x"] * size, member.clock.now)
        member.sent.clear()
        replica.pump()

    propose(1)
    propose(100)  # two entries are on their way
    assert replica.journal.last_index == last + 2
    for name in ("n2", "n3"):
        member.receive(name, msg.APPENDED, term, last + 2, False, True)
    assert replica.core.commit_index == last + 1
    assert appends(member.sent, "n4") == []
    member.clock.now += SETTINGS.heartbeat_s * 1.1
    member.sent.clear()
    replica.pump()
    assert [append[2] for append in appends(member.sent, "n4")] == [last + 1]  # the heartbeat never fails
