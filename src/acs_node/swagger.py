"""The OpenAPI document in the two forms that OpenWhisk serves beside it: Swagger 2.0, and a page.

Both are made from the document of ``openapi``, so that they cannot say something else.
"""

from __future__ import annotations

from html import escape
from typing import Any, Final

from .openapi_schemas import Json

__all__ = ["html_page", "swagger_document"]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")

_PLACES: Final = {
    "#/components/schemas/": "#/definitions/",
    "#/components/parameters/": "#/parameters/",
    "#/components/responses/": "#/responses/",
}


# --- Swagger 2.0 ---------------------------------------------------------------------------------


def swagger_document(document: Json) -> Json:
    """Return an OpenAPI 3.1 document of ours as Swagger 2.0.

    What that cannot say (``anyOf``, the description of a path, examples of parameters) stands
    under the same name behind ``x-``.
    """
    components, info = document["components"], document["info"]
    return {
        "swagger": "2.0",
        "info": {**info, "license": {"name": info["license"]["name"]}},
        "basePath": "/",
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "security": document["security"],
        "securityDefinitions": {
            name: {"type": "basic", "description": scheme["description"]}
            for name, scheme in components["securitySchemes"].items()
        },
        "paths": {path: _path(item) for path, item in document["paths"].items()},
        "parameters": {name: _parameter(each) for name, each in components["parameters"].items()},
        "responses": {name: _response(each) for name, each in components["responses"].items()},
        "definitions": {name: _schema(each) for name, each in components["schemas"].items()},
    }


def _path(item: Json) -> Json:
    made: Json = {name: _operation(item[name]) for name in METHODS if name in item}
    if "parameters" in item:
        made["parameters"] = [_schema(each) for each in item["parameters"]]
    if "description" in item:
        made["x-description"] = item["description"]
    return made


def _operation(operation: Json) -> Json:
    made = {**operation}
    parameters = [_schema(each) for each in operation.get("parameters", ())]
    body = made.pop("requestBody", None)
    if body is not None:
        (content,) = body["content"].values()
        schema = _schema(content["schema"])
        parameters.append(
            {"name": "body", "in": "body", "required": body["required"], "schema": schema}
        )
    if parameters:
        made["parameters"] = parameters
    answers = operation["responses"]
    made["responses"] = {status: _response(each) for status, each in answers.items()}
    types = {media for each in answers.values() for media in each.get("content", ())}
    if types - {"application/json"}:
        made["produces"] = sorted(types)
    return made


def _parameter(parameter: Json) -> Json:
    made = {key: value for key, value in parameter.items() if key != "schema"}
    for key, value in parameter["schema"].items():
        made["x-example" if key == "example" else key] = value
    return made


def _response(response: Json) -> Json:
    if "$ref" in response:
        return dict(_schema(response))
    made = {"description": response["description"]}
    for media, content in response.get("content", {}).items():
        if content["schema"]:
            made["schema"] = _schema(content["schema"])
        if "example" in content:
            made["examples"] = {media: content["example"]}
    if "headers" in response:
        made["headers"] = {
            name: {"description": each.get("description", ""), **each["schema"]}
            for name, each in response["headers"].items()
        }
    return made


def _schema(value: Any) -> Any:
    """Return a schema, or a reference, without what Swagger 2.0 does not know."""
    if isinstance(value, list):
        return [_schema(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, each in value.items():
        if key == "$ref":
            (place,) = (old for old in _PLACES if each.startswith(old))
            made[key] = _PLACES[place] + each.removeprefix(place)
        elif key == "properties":
            made[key] = {name: _schema(schema) for name, schema in each.items()}
        elif key == "const":
            made["enum"] = [each]
        elif key == "anyOf":
            made["x-anyOf"] = _schema(each)
        else:
            made[key] = _schema(each)
    return made


# --- a page --------------------------------------------------------------------------------------

_STYLE: Final = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "code{font-size:14px}summary{padding:.3em 0;cursor:pointer}"
    "summary b{display:inline-block;width:5em}td{padding:.1em 1em .1em 0;vertical-align:top}"
)


def html_page(document: Json, source: str) -> str:
    """Return a page that shows the operations; ``source`` is the URL of the document itself.

    It loads nothing from anywhere.
    """
    info = document["info"]
    rows = [
        _operation_html(document, path, item, method)
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
    title = escape(info["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])}</p>"
        f'<p>For programs: <a href="{escape(source)}">{escape(source)}</a></p>'
        f"{''.join(rows)}</html>"
    )


def _operation_html(document: Json, path: str, item: Json, method: str) -> str:
    operation = item[method]
    named = [*item.get("parameters", ()), *operation.get("parameters", ())]
    parameters = [_resolved(document, each) for each in named]
    answers = {
        status: _resolved(document, each) for status, each in sorted(operation["responses"].items())
    }
    rows = [_row(f"{each['name']} ({each['in']})", each["description"]) for each in parameters] + [
        _row(status, each["description"]) for status, each in answers.items()
    ]
    return (
        f"<details><summary><b>{method.upper()}</b><code>{escape(path)}</code>"
        f" {escape(operation['summary'])}</summary><table>{''.join(rows)}</table></details>"
    )


def _row(name: str, text: str) -> str:
    return f"<tr><td><code>{escape(name)}</code><td>{escape(text)}"


def _resolved(document: Json, value: Json) -> Json:
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value
