"""The OpenAPI document says what the server does: each of its routes, and what they answer.

Schemathesis sends to a real server what the document allows, and what it does not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy, one_of
from node.house import ECHO
from node.server import rest_client, running_server
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.transport import Response as Answer

from acs_node.action_schema import RuntimeKinds, SystemLimits
from acs_node.api import create_app
from acs_node.demo import ServerProcess
from acs_node.openapi import openapi_document
from acs_node.swagger import swagger_document

EXAMPLES = 20
DOCUMENT = openapi_document(SystemLimits(), RuntimeKinds())
OPERATIONS = {
    each.ok().label: each.ok()
    for each in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
}
RUN_ID = "x-openwhisk-activation-id"
# What a schema cannot say: the first PUT needs `exec`, `count` excludes `docs`, and a rule is
# switched where its trigger is.
CONDITIONAL = (
    "PUT ",
    "POST /api/v1/namespaces/{ns}/rules/",
    "GET /api/v1/namespaces/{ns}/activations",
)


@dataclass
class Known:
    """A server, and what there is on it."""

    server: ServerProcess
    auth: tuple[str, str]
    activation_id: str


def routes_of_the_api() -> list[str]:
    """Return the paths of the router, as it has them."""
    app: Any = create_app(Mock(), Mock(), info={})
    return [route.path for route in app._app.routes]


@pytest.fixture(scope="module")
def known() -> Iterator[Known]:
    with running_server() as server, rest_client(server) as client:
        action = {
            "exec": {"kind": "python:3", "code": ECHO},
            "annotations": [{"key": "web-export", "value": True}],
        }
        client.put("namespaces/_/actions/echo", json=action).raise_for_status()
        invoked = client.post("namespaces/_/actions/echo?blocking=true", json={"a": 1})
        user, _, key = server.auth.partition(":")
        yield Known(server, (user, key), invoked.json()["activationId"])


def test_the_document_is_served_to_everyone_and_names_the_servers_limits(known: Known) -> None:
    with rest_client(known.server) as client:
        answer = client.get("openapi.json", auth=None)
        assert answer.status_code == 200
        assert answer.json() == DOCUMENT
        assert client.post("openapi.json").status_code == 405


def test_the_document_and_its_swagger_form_are_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    OpenAPIV2SpecValidator(swagger_document(DOCUMENT)).validate()


def test_the_swagger_form_has_the_operations_of_the_document(known: Known) -> None:
    with rest_client(known.server) as client:
        described = client.get("").json()["swagger_paths"]
        answer = client.get(described["api-docs"].lstrip("/"), auth=None)
    swagger = answer.json()
    assert swagger == swagger_document(DOCUMENT)
    found = schemathesis.openapi.from_dict(swagger).get_all_operations()
    assert {each.ok().label for each in found} == set(OPERATIONS)
    assert "#/components/" not in answer.text
    invoke = swagger["paths"]["/api/v1/namespaces/{ns}/actions/{name}"]["post"]
    assert [each.get("$ref", each.get("name")) for each in invoke["parameters"]] == [
        "#/parameters/blocking", "#/parameters/result", "#/parameters/timeout", "body",
    ]  # fmt: skip


def test_the_page_shows_every_operation_and_loads_nothing(known: Known) -> None:
    with rest_client(known.server) as client:
        answer = client.get("docs", auth=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for path, item in DOCUMENT["paths"].items():
        for method in item.keys() & {"get", "put", "post", "delete"}:
            assert f"<b>{method.upper()}</b><code>{path}</code>" in answer.text
    assert "src=" not in answer.text


def test_every_route_of_the_api_is_in_the_document_with_its_methods(known: Known) -> None:
    # The parts of limits are there only to say that there are none.
    routes = {path.rstrip("/") for path in routes_of_the_api() if "limits/" not in path}
    routes = {each.replace("{rest:path}", "{ns}/{package}/{name}") for each in routes}
    assert routes == {path.rstrip("/") for path in DOCUMENT["paths"]}
    with rest_client(known.server) as client:
        for path, item in DOCUMENT["paths"].items():
            url = known.server.url + path.format(ns="_", package="p", name="echo", id="0" * 32)
            answer = client.request("TRACE", url)
            methods = item.keys() - {"parameters", "description"}
            assert answer.status_code == 405, path
            assert answer.headers["allow"].lower().split(", ") == sorted(methods), path


@pytest.mark.parametrize("label", OPERATIONS)
def test_the_server_answers_as_the_document_says(label: str, known: Known) -> None:
    excluded = [CHECKS.get_one("not_a_server_error"), CHECKS.get_one("negative_data_rejection")]
    if label.startswith(CONDITIONAL):
        excluded.append(CHECKS.get_one("positive_data_acceptance"))

    @given(case=cases(label, known))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case) -> None:
        # A dropped connection raises here.
        answer = case.call(base_url=known.server.url, auth=known.auth)
        case.validate_response(
            answer,
            excluded_checks=excluded,
            additional_checks=[no_failure_but_the_actions_own],
            transport_kwargs={"auth": known.auth},
        )

    send()


def cases(label: str, known: Known) -> SearchStrategy[schemathesis.Case]:
    """Return requests that are allowed, or not; for what there is, or for random names.

    Some of what is not allowed is ignored, such as a header without meaning; that it is refused
    where it must be is tested one by one in ``test_api``.
    """
    operation = OPERATIONS[label]
    is_web = "/web/" in operation.path
    changes = operation.method in ("put", "delete") and not is_web
    there = {
        "ns": "guest" if is_web else "_",
        "package": "default" if is_web else "p",
        "name": "draft" if changes else "echo",
        "id": known.activation_id,
    }
    names = {field: there[field] for field in re.findall(r"{(\w+)}", operation.path)}
    return one_of(
        [
            operation.as_strategy(mode, path_parameters=path_parameters)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
            for path_parameters in (names, None)
        ]
    )


@schemathesis.check
def no_failure_but_the_actions_own(
    context: schemathesis.CheckContext, answer: Answer, case: schemathesis.Case
) -> None:
    """An action that fails is answered with 502, which is not the server's failure."""
    of_action = answer.status_code == 502 and RUN_ID in answer.headers
    assert answer.status_code < 500 or of_action, answer.text
