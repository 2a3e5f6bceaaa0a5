"""The way to the server: where it is, the key, one request at a time, and what can go wrong.

``transport`` is the one seam: tests put an ``httpx.MockTransport`` there.
"""

import base64
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from urllib.parse import quote

import click

from acs_node import wskprops
from acs_node.cli.errors import BadSetting, NoAccess, Rejected

if TYPE_CHECKING:  # httpx takes longer to import than everything else here together
    import httpx

CONNECT_S = 5.0
ANSWER_S = 30.0  # what any request but a waiting one may take


class Setting(NamedTuple):
    """A value and where it came from, for messages."""

    value: str
    origin: str


class Reply(NamedTuple):
    """An answer of the server: status, JSON body, and the activation it is about."""

    status: int
    body: object
    activation_id: str | None


class Connection:
    """What a command needs to talk to the server. Opens nothing until it is asked something."""

    def __init__(
        self,
        apihost: Setting,
        auth: Setting | None,
        namespace: str,
        auth_sought: str,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        self.namespace = namespace
        self._apihost = apihost
        self._auth = auth
        self._auth_sought = auth_sought
        self._transport = transport

    @classmethod
    def find(
        cls,
        apihost: str | None,
        auth: str | None,
        namespace: str | None,
        environ: Mapping[str, str] = os.environ,
        transport: "httpx.BaseTransport | None" = None,
    ) -> "Connection":
        """Take each setting from its option, else the environment, else the settings file.

        Raises BadSetting when the file exists and cannot be read.
        """
        path = wskprops.default_path(environ)
        try:
            settings = wskprops.read(path)
        except OSError as error:
            raise BadSetting(f"cannot read {path}: {error.strerror}") from None

        def choose(key: str, option: str | None) -> Setting | None:
            sources = (
                (option, f"--{key.lower()}"),
                (environ.get(f"ACS_{key}"), f"ACS_{key}"),
                (settings.get(key), str(path)),
            )
            return next((Setting(value, origin) for value, origin in sources if value), None)

        chosen_namespace = choose("NAMESPACE", namespace)
        return cls(
            choose("APIHOST", apihost) or Setting(wskprops.DEFAULT_APIHOST, "the default"),
            choose("AUTH", auth),
            chosen_namespace.value if chosen_namespace else "_",
            f"--auth, ACS_AUTH and {path}",
            transport,
        )

    def path(self, collection: str, name: str = "", rest: str = "") -> str:
        """Name a resource; ``name`` is ``[/NAMESPACE/][PACKAGE/]NAME``.

        Raises click.UsageError on a name of another form.
        """
        namespace, entity = split_name(name) if name else (None, "")
        return self.quoted(
            "namespaces", namespace or self.namespace, collection, *entity.split("/"), rest
        )

    @staticmethod
    def quoted(*segments: str) -> str:
        """Join the segments of a path; empty ones are left out."""
        return "/".join(quote(segment, safe="") for segment in segments if segment)

    def full_name(self, name: str) -> str:
        """Return ``/NAMESPACE/[PACKAGE/]NAME`` for a name that may lack its namespace.

        Raises click.UsageError on a name of another form.
        """
        namespace, entity = split_name(name)
        return f"/{namespace or self.namespace}/{entity}"

    def url(self, path: str) -> str:
        """Return the whole URL of a path below the API's."""
        return f"{self._url()}{wskprops.API_PATH}/{path}"

    def call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str | int] | None = None,
        body: object = None,
        answer_s: float = ANSWER_S,
        may_be_empty: bool = False,
    ) -> Reply:
        """Send one request and give back an answer that is about what was asked.

        That is any 2xx, and any status that comes with an activation. ``doing`` says what is tried,
        in words, for messages. Nothing is ever sent twice. ``may_be_empty``: so may the answer.

        Raises Rejected or NoAccess in all other cases, BadSetting before anything is sent.
        """
        import httpx

        url = self._url()
        headers = {"Authorization": self._authorization()}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body, allow_nan=False)
        try:
            with httpx.Client(
                transport=self._transport,
                timeout=httpx.Timeout(answer_s, connect=CONNECT_S),
                verify=url.startswith("https"),  # reading the certificates takes 20 ms
                trust_env=not wskprops.is_loopback(url),  # no proxy between this machine and itself
            ) as client:
                response = client.request(
                    method,
                    f"{url}{wskprops.API_PATH}/{path}",
                    params=dict(params or {}),
                    headers=headers,
                    content=content,
                )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            hint = "is `acs standalone` running? Another server is named by --apihost"
            self._unreachable(doing, str(error) or "no connection in time", hint)
        except httpx.TimeoutException:
            hint = "it may still have been done; ask before you repeat it"
            self._unreachable(doing, f"no answer within {answer_s:g} s", hint)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            self._unreachable(
                doing, str(error) or type(error).__name__, "does it speak HTTP there?"
            )
        if may_be_empty and response.is_success and not response.content:
            return Reply(response.status_code, None, None)
        return self._judge(response, doing)

    def headers(self) -> dict[str, str]:
        """Return what each request of another client must carry.  Raises NoAccess, BadSetting."""
        return {"Authorization": self._authorization()}

    def _url(self) -> str:
        try:
            return wskprops.base_url(self._apihost.value)
        except ValueError as error:
            raise BadSetting(f"{error} (from {self._apihost.origin})") from None

    def _authorization(self) -> str:
        if self._auth is None:
            hint = "`acs standalone` writes one at its first start"
            raise NoAccess(f"no key: looked at {self._auth_sought}; {hint}")
        if ":" not in self._auth.value:
            raise BadSetting(f"the key from {self._auth.origin} is not UUID:KEY")
        key = self._auth.value.encode("utf-8", "surrogateescape")
        return f"Basic {base64.b64encode(key).decode('ascii')}"

    def _unreachable(self, doing: str, why: str, hint: str) -> NoReturn:
        where = f"{self._apihost.value} (from {self._apihost.origin})"
        raise NoAccess(f"cannot {doing}: {where}: {why}; {hint}")

    def _judge(self, response: "httpx.Response", doing: str) -> Reply:
        try:
            body = response.json()
        except ValueError:
            body = None
        activation_id = response.headers.get("x-openwhisk-activation-id")
        if body is not None and (response.is_success or activation_id):
            return Reply(response.status_code, body, activation_id)
        if response.is_success or response.is_redirect:
            self._unreachable(
                doing,
                f"answered {response.status_code} without JSON",
                "is it a server of this API?",
            )
        said = body.get("error") if isinstance(body, dict) else None
        message = f"cannot {doing}: {said or response.reason_phrase} ({response.status_code})"
        is_unknown_key = response.status_code == 401
        if response.status_code in (401, 403) and self._auth:
            message += f"; the key came from {self._auth.origin}"
            raise NoAccess(f"{message}: is it this server's?" if is_unknown_key else message)
        raise Rejected(message + _hint(doing, response.status_code))


def split_name(name: str) -> tuple[str | None, str]:
    """Split ``[/NAMESPACE/][PACKAGE/]NAME`` into namespace and the rest.

    Raises click.UsageError on other forms.
    """
    absolute = name.startswith("/")
    segments = name.removeprefix("/").split("/")
    if not 1 <= len(segments) - absolute <= 2 or {"", ".", ".."} & set(segments):
        raise click.UsageError(f"{name!r} is not [/NAMESPACE/][PACKAGE/]NAME")
    if absolute:
        return segments[0], "/".join(segments[1:])
    return None, name


def _hint(doing: str, status: int) -> str:
    if status == 404 and "activation" in doing.split():
        return "; it may still run, `acs activation list` shows those that ended"
    if status == 404 and not doing.startswith(("create ", "update ")):  # there it is the package
        return "; `acs action list` shows what there is"
    if status == 409 and doing.startswith("create "):
        return "; `acs action update` replaces what is there"
    return ""
