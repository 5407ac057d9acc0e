"""Subscribed prefixes: what they match, and what happens above their limit."""

from __future__ import annotations

from descartes_fast.server.topics import Topics

AGENT = b"11111111-2222-3333-4444-555555555555"


def test_topic_is_wanted_by_itself_and_by_each_prefix() -> None:
    for prefix in (AGENT, b"1", b""):
        topics = Topics()
        topics.add(prefix)
        assert topics.wanted(AGENT)


def test_topic_is_not_wanted_by_others_or_by_longer_ones() -> None:
    topics = Topics()
    for prefix in (b"2", b"status/", AGENT + b"\0", AGENT[:-1] + b"6", b"x" * 5000):
        topics.add(prefix)
    assert not topics.wanted(AGENT)
    assert topics.wanted(b"status/" + AGENT)


def test_removed_prefix_is_not_wanted_any_more() -> None:
    topics = Topics()
    topics.add(AGENT)
    version = topics.version
    topics.remove(AGENT)
    assert not topics.wanted(AGENT)
    assert topics.version > version


def test_more_topics_than_the_limit_are_bounded_and_take_nothing_from_others() -> None:
    topics = Topics(limit=10)
    added = [topics.add(b"%d" % number) for number in range(100, 200)]
    assert added.count(False) == 90
    assert len(topics) == 10
    assert topics.wanted(AGENT)
    for number in range(100, 200):
        topics.remove(b"%d" % number)
    assert len(topics) == 0
    assert not topics.wanted(AGENT)
