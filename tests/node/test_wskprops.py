"""The settings file: what is read from it, and when it is written."""

import os
from pathlib import Path

import pytest

from acs_node import wskprops

HERE = "http://127.0.0.1:3233"
KEY = "uuid:secret"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".wskprops"


def test_comments_blanks_and_spaces_are_tolerated_and_the_last_value_wins() -> None:
    text = "# AUTH=no\n\n APIHOST = here \nAUTH=a:b=c\nauth=d:e=f\nnonsense\n"
    assert wskprops.parse(text) == {"APIHOST": "here", "AUTH": "d:e=f"}


def test_format_is_read_back() -> None:
    settings = {"APIHOST": HERE, "AUTH": KEY, "NAMESPACE": "_"}
    assert wskprops.parse(wskprops.format_settings(settings)) == settings


def test_an_absent_file_has_no_settings(path: Path) -> None:
    assert wskprops.read(path) == {}


def test_the_environment_names_the_file() -> None:
    assert wskprops.default_path({"WSK_CONFIG_FILE": "/x/props"}) == Path("/x/props")
    assert wskprops.default_path({}) == Path.home() / ".wskprops"


@pytest.mark.parametrize(
    ("apihost", "url"),
    [
        ("example.com", "https://example.com"),
        ("localhost:3233", "http://localhost:3233"),
        ("[::1]:3233", "http://[::1]:3233"),
        ("http://Example.com:80/", "http://example.com:80"),
        ("https://example.com/gate/api/v1/", "https://example.com/gate"),
    ],
)
def test_api_hosts_become_urls(apihost: str, url: str) -> None:
    assert wskprops.base_url(apihost) == url


@pytest.mark.parametrize("apihost", ["", "ftp://x", "http://", "http://x:y", "http://k:s@x", "[x"])
def test_what_is_no_api_host_is_refused(apihost: str) -> None:
    with pytest.raises(ValueError):
        wskprops.base_url(apihost)


def test_a_first_write_makes_a_private_file(path: Path) -> None:
    assert wskprops.write_if_ours(path, HERE, KEY) == f"wrote {path}"
    assert path.read_text() == f"APIHOST={HERE}\nAUTH={KEY}\nNAMESPACE=_\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [".wskprops"]


def test_a_new_key_of_the_same_server_is_written_and_other_lines_stay(path: Path) -> None:
    path.write_text("# mine\nAUTH=old:key\nAPIHOST=127.0.0.1:3233/\nNAMESPACE=n\nX=y\n")
    path.chmod(0o644)
    assert wskprops.write_if_ours(path, HERE, KEY) == f"updated {path}"
    assert path.read_text() == f"# mine\nNAMESPACE=n\nX=y\nAPIHOST={HERE}\nAUTH={KEY}\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_file_is_filled(path: Path) -> None:
    path.touch()
    assert wskprops.write_if_ours(path, HERE, KEY) == f"updated {path}"
    assert wskprops.read(path)["AUTH"] == KEY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("APIHOST=openwhisk.example\nAUTH=a:b\n", "points to openwhisk.example"),
        ("APIHOST=http://127.0.0.1:3234\n", "points to http://127.0.0.1:3234"),
        ("APIHOST=::::\n", "points to ::::"),
        ("AUTH=a:b\n", "a key for an unnamed server"),
        (f"# kept\nAPIHOST={HERE}\nAUTH={KEY}\n", "already points here"),
    ],
)
def test_files_that_are_not_ours_or_are_right_stay_as_they_are(
    path: Path, text: str, why: str
) -> None:
    path.write_text(text)
    before = path.stat()
    said = wskprops.write_if_ours(path, HERE, KEY)
    assert why in said
    assert KEY not in said
    assert path.read_text() == text
    assert path.stat().st_ino == before.st_ino


def test_bytes_that_are_no_text_survive(path: Path) -> None:
    path.write_bytes(b"X=\xff\n")
    wskprops.write_if_ours(path, HERE, KEY)
    assert path.read_bytes().startswith(b"X=\xff\n")


def test_a_link_stays_a_link(path: Path) -> None:
    target = path.parent / "dotfiles"
    path.symlink_to(target)
    assert wskprops.write_if_ours(path, HERE, KEY) == f"wrote {target}"
    assert path.is_symlink()
    assert wskprops.read(path)["AUTH"] == KEY


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_link = os.link

    def link_late(source: str, target: Path) -> None:
        target.write_text("APIHOST=other\n")
        real_link(source, target)

    monkeypatch.setattr(os, "link", link_late)
    assert "somebody else" in wskprops.write_if_ours(path, HERE, KEY)
    assert path.read_text() == "APIHOST=other\n"
    assert os.listdir(path.parent) == [".wskprops"]


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    missing = tmp_path / "no" / ".wskprops"
    assert wskprops.write_if_ours(missing, HERE, KEY) == (
        f"could not write {missing}: No such file or directory"
    )
    assert "Is a directory" in wskprops.write_if_ours(tmp_path, HERE, KEY)
