"""Local links: order, and what a receiver that raises costs."""

import logging

import pytest

from acs_node.links import Inbox, LocalLink


def test_a_message_arrives_in_send() -> None:
    got: list[object] = []
    LocalLink(got.append, Inbox()).send("hello")
    assert got == ["hello"]


def test_messages_sent_while_one_is_received_wait_their_turn_on_all_links() -> None:
    inbox = Inbox()
    log: list[str] = []

    def first(message: object) -> None:
        log.append(f"first begins {message}")
        if message == 1:
            to_second.send("a")
            to_first.send(2)
            to_second.send("b")
        log.append(f"first ends {message}")

    to_first = LocalLink(first, inbox)
    to_second = LocalLink(lambda message: log.append(f"second {message}"), inbox)
    to_first.send(1)
    assert log == [
        "first begins 1",
        "first ends 1",
        "second a",
        "first begins 2",
        "first ends 2",
        "second b",
    ]


def test_a_receiver_that_raises_loses_one_message_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox = Inbox()
    got: list[object] = []

    def fragile(message: object) -> None:
        if message == "bad":
            raise ZeroDivisionError("planted")
        got.append(message)

    def sender(message: object) -> None:
        link.send("before")
        link.send("bad")
        link.send("after")
        got.append("the sender went on")

    link = LocalLink(fragile, inbox)
    with caplog.at_level(logging.ERROR):
        LocalLink(sender, inbox).send("go")
    link.send("later")
    assert got == ["the sender went on", "before", "after", "later"]
    assert "a str was not received" in caplog.text
    assert "planted" in caplog.text


def test_an_interrupt_in_a_receiver_comes_through_and_the_inbox_stays_usable() -> None:
    inbox = Inbox()
    got: list[object] = []

    def interrupted(message: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalLink(interrupted, inbox).send("x")
    LocalLink(got.append, inbox).send("y")
    assert got == ["y"]
