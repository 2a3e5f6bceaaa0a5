"""The OpenAPI 3.1 document of the REST API, served at ``/api/v1/openapi.json``.

What clients may send and what they get, route by route.  A test compares the paths and methods
with the router's, and another one sends what the document allows, and what it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .action_schema import SEQUENCE, RuntimeKinds, SystemLimits
from .requests import LIST_LIMIT, LIST_LIMIT_MAX

__all__ = ["API_VERSION", "openapi_document"]

Json = dict[str, Any]

BASE: Final = "/api/v1"
API_VERSION: Final = "1.0.0"
NAMESPACE: Final = f"{BASE}/namespaces/{{ns}}"

# ``\w`` of the name rule is ASCII here, as in ``names``.
_NAME_PATTERN: Final = r"^([0-9A-Za-z_]|[0-9A-Za-z_][0-9A-Za-z_@ .&-]{0,254}[0-9A-Za-z_@.&-])$"

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
    "503": "The server stops, or cannot write what it would accept",
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
                }
            },
            "schemas": _schemas(limits, kinds),
            "parameters": _parameters(),
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
        "/ping": {"get": _open("ping", "Tell that the server is there", _text("pong"))},
        BASE: {"get": _open("describeApi", "Describe the API", _json("ApiInfo"))},
        f"{BASE}/openapi.json": {
            "get": _open("openapi", "Get this document", _content({"type": "object"}))
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
                            {"type": "array", "items": _ref("ActivationSummary")},
                            {"type": "array", "items": _ref("Activation")},
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
                        _content(_ref("Accepted"), "Accepted; its record will tell how it ended")
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
            "202": _with_id(
                _content(_ref("Accepted"), "Each was invoked or refused; see its logs")
            ),
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
            "content": {"application/json": {"schema": _ref(body)}},
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


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _content(schema: Json, description: str = "OK") -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _json(schema: str) -> Json:
    return _content(_ref(schema))


def _text(example: str) -> Json:
    content = {"text/plain": {"schema": {"type": "string"}, "example": example}}
    return {"description": "OK", "content": content}


def _with_id(response: Json) -> Json:
    header = {"description": "Of this run", "schema": {"type": "string"}, "required": True}
    return {**response, "headers": {"x-openwhisk-activation-id": header}}


def _error(status: str, description: str) -> Json:
    response = _content(_ref("Error"), description)
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
    return _content({"anyOf": [{"type": "array", "items": _ref(schema)}, _count(collection)]})


def _parameters() -> Json:
    def of_path(name: str, description: str, schema: Json) -> Json:
        return {
            "name": name, "in": "path", "required": True,
            "description": description, "schema": schema,
        }  # fmt: skip

    def of_query(name: str, description: str, schema: Json) -> Json:
        return {"name": name, "in": "query", "description": description, "schema": schema}

    def switch(name: str, description: str, default: bool = False) -> Json:
        return of_query(name, description, {"type": "boolean", "default": default})

    entity = {"type": "string", "pattern": _NAME_PATTERN}
    epoch_ms = {"type": "integer", "minimum": 0}
    return {
        "ns": of_path("ns", "The namespace; `_` is the caller's own", {**entity, "example": "_"}),
        "package": of_path("package", "The name of a package", entity),
        "name": of_path("name", "The name of the entity", entity),
        "id": of_path("id", "The id of an activation", {"type": "string", "pattern": _ID}),
        "limit": of_query(
            "limit",
            f"The most rows; 0 is {LIST_LIMIT_MAX}",
            {"type": "integer", "minimum": 0, "maximum": LIST_LIMIT_MAX, "default": LIST_LIMIT},
        ),
        "skip": of_query(
            "skip", "Rows to leave out", {"type": "integer", "minimum": 0, "default": 0}
        ),
        "count": switch("count", "Answer how many there are after `skip`"),
        "docs": switch("docs", "Answer whole records; not with `count`"),
        "code": switch("code", "Answer with the code", default=True),
        "force": switch("force", "Delete also what is in it"),
        "overwrite": switch("overwrite", "Update the entity if it exists"),
        "blocking": switch("blocking", "Wait for the end"),
        "result": switch("result", "Answer the result alone"),
        "timeout": of_query(
            "timeout",
            "How long to wait, in ms",
            {"type": "integer", "minimum": 1, "maximum": 60_000, "default": 60_000},
        ),
        "path": of_query(
            "name",
            "Only those of this action, or of this `package/action`",
            {"type": "string", "pattern": _NAME_FILTER_PATTERN},
        ),
        "since": of_query("since", "Only those that started then or later, epoch in ms", epoch_ms),
        "upto": of_query("upto", "Only those that started then or before, epoch in ms", epoch_ms),
    }


_ID: Final = "^[0-9a-f]{32}$"
_NAME_FILTER_PATTERN: Final = (
    r"^(\w[0-9A-Za-z_@.&-]{0,255}(/\w[0-9A-Za-z_@.&-]{0,255})?)?$".replace(r"\w", "[0-9A-Za-z_]")
)


def _object(required: str = "", **properties: Any) -> Json:
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    return schema


def _schemas(limits: SystemLimits, kinds: RuntimeKinds) -> Json:
    text, whole, truth = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    version = {"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$"}
    pairs = {"type": "array", "items": _ref("Pair")}
    of_entity: Json = {
        "namespace": {**text, "description": "With the package, if any: `ns/package`"},
        "name": text,
        "version": {"type": "string", "description": "The last number grows with each update"},
        "publish": truth,
        "updated": {**whole, "description": "Epoch in ms"},
    }
    entity = " ".join(of_entity)
    of_activation: Json = {
        "namespace": {**text, "description": "Of who invoked it"},
        "name": text,
        "version": text,
        "publish": truth,
        "activationId": {"type": "string", "pattern": _ID},
        "start": {**whole, "description": "Epoch in ms"},
        "end": whole,
        "duration": {**whole, "description": "In ms, with the initialisation"},
        "cause": {**text, "description": "The activation that contains this one"},
        "annotations": {"type": "array", "items": _object("key value", key=text)},
    }
    activation = "namespace name version publish activationId start annotations"
    kind_names = [each.kind for family in kinds.families.values() for each in family]
    defaults = [
        f"{name}:default"
        for name, family in kinds.families.items()
        if any(each.default for each in family)
    ]

    def bounded(least: int, most: int, unit: str) -> Json:
        return {"type": "integer", "minimum": least, "maximum": most, "description": unit}

    return {
        "Error": _object(
            "error code", error=text, code={**text, "description": "The request's `X-Request-ID`"}
        ),
        "ApiInfo": _object("description api_version api_version_path build buildno swagger_paths"),
        "Pair": _object(
            "key value",
            key=text,
            value={"description": "Any JSON"},
            init={**truth, "description": "Of a parameter: it goes to the environment instead"},
        ),
        "ActionLimits": _object(
            timeout=bounded(limits.timeout_ms_min, limits.timeout_ms_max, "ms"),
            memory=bounded(limits.memory_mb_min, limits.memory_mb_max, "MB"),
            logs=bounded(limits.logs_mb_min, limits.logs_mb_max, "MB"),
            concurrency=bounded(
                limits.concurrency_min, limits.concurrency_max, "Runs at once in a container"
            ),
            instances=bounded(1, limits.instances_max, "The most containers"),
        ),
        "ActionPut": _object(
            exec=_object(
                "kind",
                kind={"type": "string", "enum": [*kind_names, *defaults, SEQUENCE]},
                code={**text, "description": "Source, or an archive in base64"},
                main={**text, "description": "The name of the function"},
                components={
                    "type": "array",
                    "items": {**text, "description": "Of a sequence: `/ns/[package/]action`"},
                },
            ),
            parameters={**pairs, "description": "An update replaces all of them"},
            annotations={**pairs, "description": "An update merges them by key"},
            delAnnotations={"type": "array", "items": text},
            limits=_ref("ActionLimits"),
            publish=truth,
            version=version,
        ),
        "Exec": _object(
            "kind binary",
            kind=text,
            binary=truth,
            code=text,
            main=text,
            image=text,
            components={"type": "array", "items": text},
        ),
        "Action": _object(
            f"{entity} exec parameters limits annotations",
            **of_entity,
            exec=_ref("Exec"),
            parameters=pairs,
            limits=_ref("ActionLimits"),
            annotations=pairs,
        ),
        "ActionSummary": _object(
            f"{entity} exec limits annotations",
            **of_entity,
            exec=_object("binary", binary=truth),
            limits=_ref("ActionLimits"),
            annotations=pairs,
        ),
        **_grouping_schemas(of_entity, entity, version),
        "Arguments": {"type": "object"},
        "Accepted": _object("activationId", activationId=of_activation["activationId"]),
        "Response": _object(
            "status success result size",
            status={
                "enum": [
                    "success",
                    "application error",
                    "action developer error",
                    "whisk internal error",
                ]
            },
            success=truth,
            result={},
            size={**whole, "description": "Of the result's text, in bytes"},
        ),
        "Logs": _object("logs", logs={"type": "array", "items": text}),
        "Activation": _object(
            f"{activation} subject response logs",
            **of_activation,
            subject=text,
            response=_ref("Response"),
            logs={"type": "array", "items": text},
        ),
        "ActivationSummary": _object(
            f"{activation} statusCode",
            **of_activation,
            statusCode={
                "type": "integer",
                "minimum": 0,
                "maximum": 3,
                "description": "Success, application, developer, internal error",
            },
        ),
        "Limits": _object(
            "invocationsPerMinute concurrentInvocations firesPerMinute maxActionMemory"
            " minActionMemory maxActionLogs minActionLogs maxActionTimeout minActionTimeout"
            " maxActionConcurrency minActionConcurrency maxParameterSize maxActionInstances",
            maxParameterSize=text,
            allowedKinds={"type": "array", "items": text},
        ),
    }


def _grouping_schemas(of_entity: Json, entity: str, version: Json) -> Json:
    """Return the schemas of packages, triggers and rules."""
    text, truth = {"type": "string"}, {"type": "boolean"}
    pairs = {"type": "array", "items": _ref("Pair")}
    status = {"type": "string", "enum": ["active", "inactive"]}
    bound = _object("name", namespace=text, name=text)
    of_package = {**of_entity, "annotations": pairs}
    put: Json = {"annotations": pairs, "publish": truth, "version": version}
    with_parameters = {**put, "parameters": pairs}
    reference = {"anyOf": [text, _ref("EntityName")]}
    rule = {**of_package, "trigger": _ref("EntityName"), "action": _ref("EntityName")}
    return {
        "EntityName": _object("path name", path=text, name=text),
        "PackagePut": _object(**with_parameters, binding=bound),
        "Package": _object(
            f"{entity} parameters annotations binding",
            **of_package,
            parameters=pairs,
            binding={"type": "object", "description": "What it stands for, or empty"},
            actions={"type": "array", "items": _object("name version annotations")},
            feeds={"type": "array", "items": _object("name version annotations")},
        ),
        "PackageSummary": _object(
            f"{entity} annotations binding",
            **of_package,
            binding={"anyOf": [{"const": False}, bound]},
        ),
        "TriggerPut": _object(**with_parameters, limits={"type": "object"}),
        "Trigger": _object(
            f"{entity} parameters annotations limits",
            **of_package,
            parameters=pairs,
            limits={"type": "object"},
            rules={"type": "object", "description": "By name: the action and the status"},
        ),
        "TriggerSummary": _object(f"{entity} annotations", **of_package),
        "RulePut": _object(**put, trigger=reference, action=reference),
        "Rule": _object(f"{entity} annotations trigger action status", **rule, status=status),
        "RuleSummary": _object(f"{entity} annotations trigger action", **rule),
        "RuleStatus": _object("status", status=status),
    }
