"""The OpenAPI 3.1 document of the REST API, served at ``/api/v1/openapi.json``.

What clients may send and what they get, route by route.  A test compares the paths and methods
with the router's, and another one sends what the document allows, and what it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .action_schema import RuntimeKinds, SystemLimits
from .openapi_schemas import Json, parameters, ref, schemas

__all__ = ["API_VERSION", "openapi_document"]

BASE: Final = "/api/v1"
API_VERSION: Final = "1.0.0"
NAMESPACE: Final = f"{BASE}/namespaces/{{ns}}"

_ERRORS: Final[Mapping[str, str]] = {
    "400": "A name, a query parameter or the body is malformed; the text says which and why",
    "401": "Credentials are missing or wrong",
    "403": "The namespace belongs to somebody else, or the kind is not allowed to this one",
    "404": "It does not exist",
    "405": "The resource has no such method; `Allow` says which it has",
    "409": "It exists already, is of another collection, or was changed by somebody else meanwhile",
    "413": "It is larger than allowed; the text says what, its size and the limit",
    "415": "The body is not `application/json`",
    "422": "A package is bound to itself",
    "429": "Too much at once; the text says which limit, `Retry-After` when it may be better",
    "500": "An internal error; the server's log has it under the `code`",
    "503": "The server stops, or cannot write what it would accept; the text says which limit,"
    " `Retry-After` when it may be better",
}


def openapi_document(limits: SystemLimits, kinds: RuntimeKinds) -> Json:
    """Return the document for a server with these limits and kinds."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ACS: the OpenWhisk REST API",
            "version": API_VERSION,
            "description": (
                "A path works with and without a slash at its end, but for that of a package."
                " The namespace `_` is the caller's own."
                " Query parameters that are not named here are ignored."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The key of a namespace: `uuid:key`",
                },
                "operator": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "What the server's operator has put into a file",
                },
            },
            "schemas": schemas(limits, kinds),
            "parameters": parameters(),
            "responses": {name: _error(name, text) for name, text in _ERRORS.items()},
        },
    }


# --- paths ---------------------------------------------------------------------------------------


def _paths() -> Json:
    namespace, name, activation = _parameter("ns"), _parameter("name"), _parameter("id")
    package = _parameter("package")
    paging = [_parameter("limit"), _parameter("skip"), _parameter("count")]
    with_name, in_package = [namespace, name], [namespace, package, name]
    return {
        f"{BASE}/web/{{ns}}/{{package}}/{{name}}": _web_action(),
        "/": {"get": _open("root", "Get limits and runtimes", _content({"type": "object"}))},
        "/invokers": {
            "get": _open("invokers", "Get the state of each invoker", _content({"type": "object"}))
        },
        "/invokers/healthy/count": {
            "get": _open("healthyInvokers", "Count the invokers that are up", _whole_number())
        },
        "/invokers/ready": {
            "get": _open("ready", "Tell whether all invokers are up", _content({"type": "object"}))
        },
        "/activation/count": {
            "get": _open("pending", "Count the activations that have not ended", _whole_number())
        },
        "/activation": {"get": _in_flight()},
        "/disable": {"post": _disable()},
        "/ping": {"get": _open("ping", "Tell that the server is there", _text("pong"))},
        BASE: {"get": _open("describeApi", "Describe the API", _json("ApiInfo"))},
        f"{BASE}/openapi.json": {
            "get": _open("openapi", "Get this document", _content({"type": "object"}))
        },
        f"{BASE}/api-docs": {
            "get": _open(
                "swagger", "Get this document as Swagger 2.0", _content({"type": "object"})
            )
        },
        f"{BASE}/docs": {
            "get": _open("docs", "Get a page that shows this document", _text(None, "text/html"))
        },
        f"{BASE}/namespaces": {
            "get": _operation(
                "listNamespaces",
                "List the caller's namespaces: its own one",
                _content({"type": "array", "items": {"type": "string"}}),
                errors="405",
            )
        },
        f"{NAMESPACE}/limits": {
            "parameters": [namespace],
            "get": _operation("getLimits", "Get what holds for the namespace", _json("Limits")),
        },
        f"{NAMESPACE}/actions": {
            "parameters": [namespace],
            "get": _operation(
                "listActions",
                "List actions, last updated first; or count them",
                _list_or_count("ActionSummary", "actions"),
                paging,
            ),
        },
        f"{NAMESPACE}/actions/{{package}}/": {
            "parameters": [namespace, package],
            "get": _operation(
                "listActionsOfPackage",
                "List the actions of a package",
                _list_or_count("ActionSummary", "actions"),
                paging,
                errors="404 405",
            ),
        },
        f"{NAMESPACE}/actions/{{name}}": _action("Action", with_name),
        f"{NAMESPACE}/actions/{{package}}/{{name}}": _action("PackagedAction", in_package),
        **_collection("packages", "Package", with_name),
        **_collection("triggers", "Trigger", with_name),
        **_collection("rules", "Rule", with_name),
        f"{NAMESPACE}/activations": {
            "parameters": [namespace],
            "get": _operation(
                "listActivations",
                "List activation records, last started first; or count them",
                _content(
                    {
                        "anyOf": [
                            {"type": "array", "items": ref("ActivationSummary")},
                            {"type": "array", "items": ref("Activation")},
                            _count("activations"),
                        ]
                    }
                ),
                [*paging, *(_parameter(each) for each in ("path", "since", "upto", "docs"))],
                errors="405 413",
            ),
        },
        f"{NAMESPACE}/activations/{{id}}": _record("Activation", "", [namespace, activation]),
        f"{NAMESPACE}/activations/{{id}}/result": _record(
            "Response", "Result", [namespace, activation]
        ),
        f"{NAMESPACE}/activations/{{id}}/logs": _record("Logs", "Logs", [namespace, activation]),
    }


def _in_flight() -> Json:
    pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
    operation = _open(
        "inFlight",
        "List the activations that have not ended, as [id, action]; from elsewhere than the"
        " server's machine with the operator's credential",
        _content({"type": "array", "items": pair}),
    )
    operation["responses"]["401"] = {"$ref": "#/components/responses/401"}
    return operation


def _disable() -> Json:
    """Return the operation by which an operator takes a controller out of service."""
    answers = {each: {"$ref": f"#/components/responses/{each}"} for each in ("401", "405")}
    return {
        "operationId": "disable",
        "summary": "Accept no invocations any more, until the next start",
        "security": [{"operator": []}],
        "responses": {"200": _text("controller is disabled"), **answers},
    }


def _web_action() -> Json:
    """Return a web action's resource: whatever its method, the action decides what is answered."""
    answer = _with_id({"description": "What the action makes of it"})
    answer["headers"]["x-openwhisk-activation-id"]["required"] = False
    methods = ("get", "put", "post", "delete", "options", "head", "patch")
    return {
        "description": (
            "Behind the name may follow `.json`, `.html`, `.http`, `.svg` or `.text`, and a path."
            " The package of what has none is `default`."
        ),
        "parameters": [_parameter("ns"), _parameter("package"), _parameter("name")],
        **{
            method: {
                "operationId": f"{method}Web",
                "summary": "Call a web action",
                "security": [],
                "responses": {"default": answer},
            }
            for method in methods
        },
    }


def _action(called: str, where: list[Json]) -> Json:
    """Return the resource of one action, of the default package or of another one."""
    deleted, got = _json("Action"), _json("Action")
    return {
        "parameters": where,
        "get": _operation(
            f"get{called}", "Get an action", got, [_parameter("code")], "404 405 409"
        ),
        "put": _operation(
            f"put{called}",
            "Create an action, or update it where `overwrite` says so",
            _json("Action"),
            [_parameter("overwrite")],
            errors="404 405 409 413 415",
            body="ActionPut",
        ),
        "delete": _operation(f"delete{called}", "Delete an action", deleted, errors="404 405 409"),
        "post": {
            **_operation(
                f"invoke{called}",
                "Invoke an action; the body has its arguments",
                _content({}, "It ended well: its record, or with `result` its result alone"),
                [_parameter(each) for each in ("blocking", "result", "timeout")],
                errors="404 409 413 415 429 503",
                body="Arguments",
                body_required=False,
                more={
                    "202": _with_id(
                        _content(ref("Accepted"), "Accepted; its record will tell how it ended")
                    ),
                    "502": _with_id(
                        _content({}, "The action failed: its record, or its result alone")
                    ),
                    # An internal error of the request, or of the platform while it ran.
                    "500": _content({}, "The platform failed: the record, the result or an error"),
                },
            )
        },
    }


def _collection(collection: str, schema: str, where: list[Json]) -> Json:
    """Return the resources of packages, triggers or rules: the list, and each of them."""
    one = schema.lower()
    forced = [_parameter("force")] if schema == "Package" else []
    resource: Json = {
        "parameters": where,
        "get": _operation(f"get{schema}", f"Get a {one}", _json(schema), errors="404 405 409"),
        "put": _operation(
            f"put{schema}",
            f"Create a {one}, or update it where `overwrite` says so",
            _json(schema),
            [_parameter("overwrite")],
            errors="404 405 409 413 415" + (" 422" if schema == "Package" else ""),
            body=f"{schema}Put",
        ),
        "delete": _operation(
            f"delete{schema}", f"Delete a {one}", _json(schema), forced, errors="404 405 409"
        ),
    }
    if schema == "Trigger":
        resource["post"] = _fire()
    if schema == "Rule":
        resource["post"] = _operation(
            "setRuleStatus",
            "Switch a rule on or off",
            {"description": "It is so"},
            errors="404 409 413 415",
            body="RuleStatus",
        )
    return {
        f"{NAMESPACE}/{collection}": {
            "parameters": [where[0]],
            "get": _operation(
                f"list{schema}s",
                f"List {collection}, last updated first; or count them",
                _list_or_count(f"{schema}Summary", collection),
                [_parameter(each) for each in ("limit", "skip", "count")],
            ),
        },
        f"{NAMESPACE}/{collection}/{{name}}": resource,
    }


def _fire() -> Json:
    operation = _operation(
        "fireTrigger",
        "Fire a trigger: the actions of its active rules are invoked",
        {},
        errors="404 409 413 415 429 503",
        body="Arguments",
        body_required=False,
        more={
            "202": _with_id(_content(ref("Accepted"), "Each was invoked or refused; see its logs")),
            "204": {"description": "No rule is active, so nothing was done"},
        },
    )
    del operation["responses"]["200"]
    return operation


def _record(schema: str, part: str, where: list[Json]) -> Json:
    what = part.lower() or "record"
    return {
        "parameters": where,
        "get": _operation(
            f"getActivation{part}",
            f"Get the {what} of an activation that has ended",
            _json(schema),
            errors="404 405",
        ),
    }


def _operation(
    operation_id: str,
    summary: str,
    answer: Json,
    parameters: list[Json] | None = None,
    errors: str = "405",
    body: str = "",
    body_required: bool = True,
    more: Mapping[str, Json] | None = None,
) -> Json:
    """Return an operation; ``errors`` are the ones besides those that each operation has."""
    statuses = sorted({"400", "401", "403", "500", *errors.split()})
    responses: Json = {"200": answer}
    responses |= {each: {"$ref": f"#/components/responses/{each}"} for each in statuses}
    operation: Json = {
        "operationId": operation_id,
        "summary": summary,
        "responses": {**responses, **(more or {})},
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": ref(body)}},
        }
    return operation


def _open(operation_id: str, summary: str, answer: Json) -> Json:
    """Return a GET for which no credentials are needed."""
    return {
        "operationId": operation_id,
        "summary": summary,
        "security": [],
        "responses": {"200": answer, "405": {"$ref": "#/components/responses/405"}},
    }


# --- parts ---------------------------------------------------------------------------------------


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _content(schema: Json, description: str = "OK") -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _json(schema: str) -> Json:
    return _content(ref(schema))


def _whole_number() -> Json:
    return _content({"type": "integer", "minimum": 0})


def _text(example: str | None, media: str = "text/plain") -> Json:
    content: Json = {"schema": {"type": "string"}}
    if example is not None:
        content["example"] = example
    return {"description": "OK", "content": {media: content}}


def _with_id(response: Json) -> Json:
    header = {"description": "Of this run", "schema": {"type": "string"}, "required": True}
    return {**response, "headers": {"x-openwhisk-activation-id": header}}


def _error(status: str, description: str) -> Json:
    response = _content(ref("Error"), description)
    header = {"schema": {"type": "string"}, "required": True}
    names = {"401": "WWW-Authenticate", "405": "Allow", "429": "Retry-After"}
    if status in names:
        response["headers"] = {names[status]: header}
    return response


def _count(collection: str) -> Json:
    return {
        "type": "object",
        "required": [collection],
        "properties": {collection: {"type": "integer", "minimum": 0}},
        "additionalProperties": False,
    }


def _list_or_count(schema: str, collection: str) -> Json:
    return _content({"anyOf": [{"type": "array", "items": ref(schema)}, _count(collection)]})
