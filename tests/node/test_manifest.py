"""The runtimes manifest: what of OpenWhisk's own is understood, and how mistakes are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from acs_core.prewarm import Prewarm
from acs_node.errors import ApiError
from acs_node.manifest import ManifestError, load, parse

IMAGE = {"prefix": "openwhisk", "name": "action-nodejs-v20", "tag": "nightly"}
MANIFEST: dict[str, Any] = {
    "description": ["words"],
    "runtimes": {
        "nodejs": [
            {
                "kind": "nodejs:20",
                "default": True,
                "image": IMAGE,
                "deprecated": False,
                "attached": {"attachmentName": "codefile", "attachmentType": "text/plain"},
                "stemCells": [
                    {"initialCount": 2, "memory": "256 MB"},
                    {
                        "count": 1,
                        "memory": "1 GB",
                        "reactive": {
                            "minCount": 1,
                            "maxCount": 4,
                            "ttl": "2 minutes",
                            "threshold": 2,
                            "increment": 3,
                        },
                    },
                ],
            },
            {"kind": "nodejs:14", "image": {"name": "old"}, "deprecated": True},
        ],
        "java": [
            {
                "kind": "java:8",
                "image": {"registry": "localhost:5000/", "name": "java8action", "tag": "1"},
                "requireMain": True,
                "sentinelledLogs": False,
            }
        ],
    },
    "blackboxes": [{"prefix": "openwhisk", "name": "dockerskeleton", "tag": "nightly"}],
}


def test_a_manifest_of_openwhisk_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "runtimes.json"
    path.write_text(json.dumps(MANIFEST))
    manifest = load(path)
    runtimes = manifest.runtimes()
    assert {kind: each.image for kind, each in runtimes.items()} == {
        "nodejs:20": "openwhisk/action-nodejs-v20:nightly",
        "nodejs:14": "old",
        "java:8": "localhost:5000/java8action:1",
    }
    assert (runtimes["nodejs:20"].sentinels, runtimes["java:8"].sentinels) == (True, False)
    assert manifest.blackboxes == {"openwhisk/dockerskeleton:nightly"}
    assert manifest.prewarm() == (
        Prewarm("nodejs:20", 256, 2),
        Prewarm(
            "nodejs:20", 1024, 1, expiry_us=120_000_000, count_min=1, count_max=4,
            threshold=2, increment=3,
        ),
    )  # fmt: skip
    kinds = manifest.kinds()
    assert kinds.resolve("nodejs:default") == "nodejs:20"
    assert kinds.resolve("java:default") == "java:8", "the only one of a family is its default"
    assert kinds.requires_main("java:8")
    assert not kinds.requires_main("nodejs:20")
    with pytest.raises(ApiError, match=r"The 'nodejs:14' runtime is no longer supported\."):
        kinds.resolve("nodejs:14")


def nodejs(**fields: Any) -> dict[str, Any]:
    return {"runtimes": {"nodejs": [{"kind": "nodejs:20", "image": IMAGE, **fields}]}}


def cell(**fields: Any) -> dict[str, Any]:
    return nodejs(stemCells=[{"initialCount": 1, "memory": "256 MB", **fields}])


REACTIVE = {"minCount": 1, "maxCount": 2, "ttl": "1 s", "threshold": 1, "increment": 1}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the manifest is []; it must be an object"),
        ({}, "the manifest has no 'runtimes'"),
        ({"runtimes": {}}, "runtimes has no kind"),
        ({"runtimes": []}, "runtimes is []; it must be an object"),
        ({"runtimes": {"nodejs": {}}}, "runtimes.nodejs is {}; it must be a list"),
        ({"runtimes": {"nodejs": []}}, "runtimes.nodejs has 0 kinds with default: true"),
        ({"runtimes": {"nodejs": [3]}}, "runtimes.nodejs[0] is 3; it must be an object"),
        (nodejs(kind="python:3"), "nodejs[0].kind is 'python:3'; it must begin with 'nodejs:'"),
        (nodejs(kind="nodejs"), "nodejs[0].kind is 'nodejs'; it must be FAMILY:VERSION"),
        (nodejs(kind="nodejs:default"), "it must be FAMILY:VERSION"),
        (nodejs(kind=" "), 'nodejs[0].kind is " "; it must be a text'),
        (nodejs(image="text"), 'nodejs[0].image is "text"; it must be an object'),
        (nodejs(image={}), "nodejs[0].image has no 'name'"),
        (nodejs(default="yes"), 'nodejs[0].default is "yes"; it must be true or false'),
        (cell(initialCount="2"), 'stemCells[0].initialCount is "2"; it must be a number'),
        (cell(initialCount=-1), "stemCells[0]: count is -1; it must be in 0.."),
        (cell(memory="much"), "stemCells[0].memory is 'much'; it must be as '256 MB'"),
        (cell(reactive={}), "stemCells[0].reactive has no 'ttl'"),
        (cell(reactive={**REACTIVE, "ttl": "soon"}), "reactive.ttl is 'soon'; it must be as"),
        (cell(reactive={**REACTIVE, "minCount": 3}), "count_min is 3; it must be in 0..2"),
        (
            {"runtimes": {"nodejs": nodejs()["runtimes"]["nodejs"] * 2}},
            "runtimes.nodejs has 0 kinds with default: true; it must be 1",
        ),
        (
            {"runtimes": {"nodejs": nodejs(default=True)["runtimes"]["nodejs"] * 2}},
            "runtimes.nodejs has 2 kinds with default: true",
        ),
        (
            {
                "runtimes": {
                    "nodejs": [
                        {"kind": "nodejs:20", "image": IMAGE, "default": True},
                        {"kind": "NodeJS:20", "image": IMAGE},
                    ]
                }
            },
            "runtimes has the kind 'nodejs:20' 2 times",
        ),
        ({**nodejs(), "blackboxes": [{"tag": "x"}]}, "blackboxes[0] has no 'name'"),
    ],
)
def test_mistakes_are_named(document: object, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(document)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for content, message in (
        (None, "No such file"),
        ("{", "no JSON"),
        (" " * 2**20 + "{}", "has more"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ManifestError, match=message) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
