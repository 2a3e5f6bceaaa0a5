"""Which names are legal, and the exact words for those that are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from acs_node.errors import ApiError, request_id
from acs_node.names import (
    check_activation_id,
    check_entity_name,
    check_name_filter,
    check_namespace,
    resolve_namespace,
    split_path,
)


def refusal(check: Callable[[str], object], text: str) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        check(text)
    return caught.value.status, caught.value.text


@pytest.mark.parametrize("name", ["a", "_", "9", "hello world", "a@b.c&d-e", "x" * 256, "a.", "a-"])
def test_legal_names_pass(name: str) -> None:
    check_entity_name(name)
    check_namespace(name)


@pytest.mark.parametrize("name", ["", " a", "a ", "-a", ".a", "a/b", "a\n", "é", "a$b", "a\0"])
def test_illegal_characters_are_refused(name: str) -> None:
    assert refusal(check_entity_name, name) == (
        400,
        "The name of the entity contains illegal characters.",
    )
    assert refusal(check_namespace, name) == (400, "The namespace contains illegal characters.")


def test_a_name_that_is_too_long_is_told_its_length() -> None:
    name = "x" * 257
    assert refusal(check_entity_name, name) == (
        400,
        "Name segement longer than allowed: 257 > 256.",
    )
    assert refusal(check_namespace, name) == (400, "Namespace longer than allowed: 257 > 256.")


def test_an_activation_id_is_32_lower_case_hexadecimal_digits() -> None:
    check_activation_id("0123456789abcdef" * 2)
    assert refusal(check_activation_id, "abc") == (
        400,
        "Activation id length is 3 but must be 32.",
    )
    for wrong in ("A" * 32, "g" * 32, "a" * 31 + "\n"):
        assert refusal(check_activation_id, wrong) == (400, "The activation id is not valid.")


def test_underscore_is_the_callers_own_namespace() -> None:
    assert resolve_namespace("_", "guest") == "guest"
    assert resolve_namespace("other", "guest") == "other"
    with pytest.raises(ApiError, match="illegal characters"):
        resolve_namespace("a/b", "guest")


def test_a_path_is_a_name_or_a_package_and_a_name() -> None:
    assert split_path("hello") == (None, "hello")
    assert split_path("pkg/hello") == ("pkg", "hello")
    for wrong in ("", "/hello", "pkg/", "a/b/c", "a//b"):
        assert refusal(split_path, wrong)[0] == 400


def test_a_name_filter_has_two_segments_at_most() -> None:
    check_name_filter("hello")
    check_name_filter("pkg/hello")
    for wrong in ("a/b/c", "/a", "a/", "a$"):
        status, text = refusal(check_name_filter, wrong)
        assert status == 400
        assert text.endswith(
            f"Parameter may be a 'simple' name or 'package-name/simple' name: {wrong}"
        )


def test_a_request_keeps_its_own_id_unless_it_is_a_servers() -> None:
    assert request_id(b"mine") == "mine"
    for header in (None, b"", b"sid_1", b"SID_1"):
        fresh = request_id(header)
        assert len(fresh) == 32
        assert fresh.isalnum()
    assert request_id(None) != request_id(None)
