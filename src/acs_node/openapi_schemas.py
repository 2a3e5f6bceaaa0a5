"""What the OpenAPI document refers to: parameters of paths and queries, and schemas of bodies."""

from __future__ import annotations

from typing import Any, Final

from .action_schema import SEQUENCE, RuntimeKinds, SystemLimits
from .requests import LIST_LIMIT, LIST_LIMIT_MAX

__all__ = ["Json", "parameters", "ref", "schemas"]

Json = dict[str, Any]

# ``\w`` of the name rule is ASCII here, as in ``names``.
_NAME_PATTERN: Final = r"^([0-9A-Za-z_]|[0-9A-Za-z_][0-9A-Za-z_@ .&-]{0,254}[0-9A-Za-z_@.&-])$"


def ref(schema: str) -> Json:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{schema}"}


def parameters() -> Json:
    """Return the parameters, by the names under which operations refer to them."""

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


def schemas(limits: SystemLimits, kinds: RuntimeKinds) -> Json:
    """Return the schemas of a server with these limits and kinds, by name."""
    text, whole, truth = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    version = {"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$"}
    pairs = {"type": "array", "items": ref("Pair")}
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
            limits=ref("ActionLimits"),
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
            exec=ref("Exec"),
            parameters=pairs,
            limits=ref("ActionLimits"),
            annotations=pairs,
        ),
        "ActionSummary": _object(
            f"{entity} exec limits annotations",
            **of_entity,
            exec=_object("binary", binary=truth),
            limits=ref("ActionLimits"),
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
            response=ref("Response"),
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
    pairs = {"type": "array", "items": ref("Pair")}
    status = {"type": "string", "enum": ["active", "inactive"]}
    bound = _object("name", namespace=text, name=text)
    of_package = {**of_entity, "annotations": pairs}
    put: Json = {"annotations": pairs, "publish": truth, "version": version}
    with_parameters = {**put, "parameters": pairs}
    reference = {"anyOf": [text, ref("EntityName")]}
    rule = {**of_package, "trigger": ref("EntityName"), "action": ref("EntityName")}
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
