"""When a client that dawdles is cut off."""

from acs_node.pace import SENT_BYTES_MIN, SLOW_LOOKS_MAX, STUCK_LOOKS_MAX, Pace


def test_a_request_that_comes_too_slowly_is_cut_off_at_the_second_look() -> None:
    pace = Pace()
    pace.received += SENT_BYTES_MIN - 1
    assert not pace.look(receiving=True, unsent_bytes=0)
    pace.received += SENT_BYTES_MIN - 1
    assert pace.look(receiving=True, unsent_bytes=0) == (
        "The request comes slower than 1024 bytes per second."
    )
    assert SLOW_LOOKS_MAX == 2


def test_one_slow_turn_is_forgiven_and_so_is_a_server_that_does_not_read() -> None:
    pace = Pace()
    for _ in range(10):
        assert not pace.look(receiving=True, unsent_bytes=0)
        pace.received += SENT_BYTES_MIN
        assert not pace.look(receiving=True, unsent_bytes=0)
    for _ in range(10):
        assert not pace.look(receiving=True, unsent_bytes=0)
        assert not pace.look(receiving=False, unsent_bytes=0)


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off() -> None:
    pace = Pace()
    for _ in range(STUCK_LOOKS_MAX):
        assert not pace.look(receiving=False, unsent_bytes=70_000)
    assert pace.look(receiving=False, unsent_bytes=70_000) == (
        "Nothing of the answer was read for 30 s."
    )


def test_a_client_that_takes_a_little_at_a_time_is_not() -> None:
    pace = Pace()
    for unsent_bytes in range(70_000, 0, -1_000):
        assert not pace.look(receiving=False, unsent_bytes=unsent_bytes)
