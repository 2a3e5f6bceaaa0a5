"""What the nodejs runtime must do, whatever engine its sandbox comes from."""

import asyncio
import base64
import gzip
import http.client
import io
import tarfile
from collections.abc import Iterable

import pytest
from node.runtime_cases import Container, RuntimeCases, Started, UnixHttp, zipped

from acs_node.sandboxes import SandboxEngine


def packed(files: Iterable[tuple[str, str]]) -> str:
    """Return a base64 tar.gz archive."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, text in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return base64.b64encode(gzip.compress(target.getvalue())).decode()


class NodejsRuntimeCases(RuntimeCases):
    """Give it an ``engine`` fixture."""

    kind = "nodejs:20"
    echo = "function main(args) { return args }"
    echo_and_speak = """
function main(args) {
  console.log("hello stdout")
  console.error("hello stderr")
  return args
}
"""
    return_other_types = """
const others = ["a string", 3, null, () => 1]
function main(args) { return others[args.number] }
"""
    wrong_type = "The action did not return a dictionary."
    niam = "const niam = () => ({ ok: 1 })  // a comment is the last line"
    snow = """
function main({ delimiter }) {
  const winter = `${delimiter} ☃ ${delimiter}`
  console.log(winter)
  return { winter }
}
"""
    environment_at_init = """
const atImport = process.env.SOME_VAR
function main() {
  const env = process.env
  return { import: atImport, some: env.SOME_VAR, another: env.ANOTHER_VAR }
}
"""
    environment = """
function main() {
  const own = Object.entries(process.env).filter(([name]) => name.startsWith("__OW_"))
  return Object.fromEntries(own)
}
"""
    dies_at_init = "console.log('last words'); process.exit(7)"
    dies_in_run = "function main() { console.log('last words'); process.exit(7) }"
    no_newline = "function main() { process.stdout.write('no newline') }"
    floods = """
function main({ chunks }) {
  for (let i = 0; i < chunks; i++) process.stdout.write("x".repeat(65536))
  return { done: true }
}
"""
    broken = (
        ("function main(args { return args }", "SyntaxError"),
        ("function other() {}", "Action entrypoint 'main' is not a function."),
        ("const main = 3", "Action entrypoint 'main' is not a function."),
        ("throw new RangeError('at load')", "RangeError: at load"),
        ("require('no-such-module')", "Cannot find module 'no-such-module'"),
    )

    # Functions and their endings

    async def test_promises_and_async_functions(self, container: Container) -> None:
        await container.init(
            """
async function main({ how }) {
  await new Promise((resolve) => setTimeout(resolve, 1))
  if (how === "throw") throw Object.assign(new TypeError("no luck"), { extra: 1 })
  if (how === "reject nothing") return Promise.reject()
  if (how === "reject text") return Promise.reject("text")
  return how === "nothing" ? undefined : { how }
}
"""
        )
        assert await container.run({"how": "well"}) == (200, {"how": "well"})
        assert await container.run({"how": "nothing"}) == (200, {})
        assert await container.run({"how": "reject nothing"}) == (200, {"error": {}})
        assert await container.run({"how": "reject text"}) == (200, {"error": "text"})
        status, body = await container.run({"how": "throw"})
        assert status == 200
        error = body["error"]
        assert (error["name"], error["message"], error["extra"]) == ("TypeError", "no luck", 1)
        assert error["stack"].startswith("TypeError: no luck\n    at main")
        logs = [container.log() for _ in range(5)]
        assert logs[:2] == [[], []]
        assert logs[4][0] == "stderr: TypeError: no luck"

    async def test_a_thrown_error_is_the_developers(self, container: Container) -> None:
        code = "function main() { throw new Error('at once') }"
        await container.init(code)
        for _ in range(2):
            message = "An error has occurred: Error: at once"
            assert await container.run() == (502, {"error": message})
            lines = container.log()
            assert lines[0] == "stderr: Error: at once"
            assert "index.js:1:" in lines[1], "the first frame is the function's"

    async def test_an_error_outside_of_a_run_ends_the_container(
        self, engine: SandboxEngine, container: Container
    ) -> None:
        code = "function main() { setImmediate(() => { throw new Error('late') }); return new Promise(() => {}) }"  # noqa: E501
        await container.init(code)
        with pytest.raises((http.client.HTTPException, OSError)):
            await container.run()
        assert "status 1" in (await engine.ending(container.sandbox)).cause
        assert any("Error: late" in line for line in container.rest())

    async def test_a_result_that_json_cannot_express(self, container: Container) -> None:
        await container.init(
            "const circle = {}; circle.a = circle\n"
            "function main({ big }) { return big ? { big: 1n } : circle }"
        )
        for big, message in ((True, "BigInt"), (False, "circular")):
            status, body = await container.run({"big": big})
            assert status == 502
            assert "JSON cannot express" in body["error"]
            assert message in body["error"]

    async def test_main_may_be_exported(self, container: Container, started: Started) -> None:
        assert (await container.init("exports.main = () => ({ by: 'exports' })"))[0] == 200
        assert await container.run() == (200, {"by": "exports"})
        other = await started()
        code = "module.exports = { inner: { main() { return { by: 'module' } } } }"
        assert (await other.init(code, main="inner.main"))[0] == 200
        assert await other.run() == (200, {"by": "module"})

    async def test_what_is_given_to_children(self, container: Container) -> None:
        await container.init(
            """
const { execFileSync, spawnSync } = require("child_process")
function main() {
  process.env.NUMBER = 5
  const code = "console.log(process.env.__OW_ACTIVATION_ID, process.env.NUMBER)"
  const said = execFileSync(process.execPath, ["-e", code], { encoding: "utf8" })
  spawnSync(process.execPath, ["-e", "console.log('from a child')"], { stdio: "inherit" })
  return { said, type: typeof process.env.NUMBER }
}
"""
        )
        status, body = await container.run()
        assert (status, body) == (200, {"said": f"{'0123456789abcdef' * 2} 5\n", "type": "string"})
        assert container.log() == ["stdout: from a child"]

    # Archives

    async def test_a_zip_with_a_package(self, container: Container) -> None:
        files = [
            ("package.json", '{"name": "p", "main": "lib/start.js"}'),
            ("lib/start.js", "const fs = require('fs')\nexports.main = () => ({"
             "text: require('helper').text, data: fs.readFileSync('data.txt', 'utf8') })"),
            ("node_modules/helper/index.js", "exports.text = 'from a module'"),
            ("data.txt", "from a file"),
        ]  # fmt: skip
        assert (await container.init(zipped(files), binary=True))[0] == 200
        assert await container.run() == (200, {"text": "from a module", "data": "from a file"})

    @pytest.mark.parametrize("pack", [zipped, packed])
    async def test_a_file_and_a_function_of_it(self, started: Started, pack: object) -> None:
        assert callable(pack)
        files = [
            ("index.js", "exports.main = () => ({ file: 'index' })"),
            ("lib/other.js", "exports.niam = () => ({ file: 'other' })"),
        ]
        for main, file in (("main", "index"), ("lib/other.niam", "other")):
            container = await started()
            assert (await container.init(pack(files), binary=True, main=main))[0] == 200
            assert await container.run() == (200, {"file": file})

    async def test_a_module_of_the_new_kind(self, container: Container) -> None:
        files = [
            ("package.json", '{"type": "module", "main": "index.mjs"}'),
            ("index.mjs", "import os from 'os'\nexport const main = () => ({ of: typeof os.EOL })"),
        ]
        assert (await container.init(zipped(files), binary=True))[0] == 200
        assert await container.run() == (200, {"of": "string"})

    async def test_archives_that_are_refused(self, started: Started) -> None:
        for code, message in (
            (zipped([("other.js", "")]), "Zipped actions must contain either package.json or"),
            (zipped([("../index.js", "")]), "'../index.js' lies outside of the archive"),
            (base64.b64encode(b"PK\3\4 and no more").decode(), "its directory is missing"),
            ("code", "it begins as neither"),
            (zipped([("index.js", "exports.other = 1")]), "'main' is not a function."),
        ):
            container = await started()
            status, body = await container.init(code, binary=True)
            assert status == 502
            assert message in body["error"]
            assert "    at " not in body["error"], "no stack of the proxy's"

    # Several runs at once

    async def test_runs_of_several_connections_overlap(self, container: Container) -> None:
        await container.init(
            """
let waiting = []
function main({ meet, n }) {
  return new Promise((resolve) => {
    waiting.push(() => resolve({ n }))
    if (waiting.length === meet) for (const go of waiting) go()
  })
}
"""
        )
        others = [UnixHttp(container.sandbox.socket_path) for _ in range(2)]

        def run(other: UnixHttp, n: int) -> bytes:
            other.request("POST", "/run", b'{"value": {"meet": 3, "n": %d}}' % n)
            return other.getresponse().read()

        answers = await asyncio.gather(
            *(asyncio.to_thread(run, other, n) for n, other in enumerate(others)),
            container.run({"meet": 3, "n": 2}),
        )
        assert answers == [b'{"n":0}', b'{"n":1}', (200, {"n": 2})]
        assert [container.log() for _ in range(3)] == [[], [], []]
        for other in others:
            other.close()
        assert await container.run({"meet": 4, "n": 3}) == (200, {"n": 3}), (
            "it goes on without them"
        )

    async def test_the_leash_ends_a_run_that_never_looks(
        self, engine: SandboxEngine, container: Container
    ) -> None:
        """The connection alone would not do: the thread that would see its end computes."""
        await container.init("function main() { console.log('begun'); for (;;); }")
        running = asyncio.create_task(container.run())
        while not container.rest():
            await asyncio.wait([running], timeout=0.005)
        container.sandbox.logs.close()
        with pytest.raises((http.client.HTTPException, OSError)):
            await running
        ending = await engine.ending(container.sandbox)
        assert "SIGKILL" in ending.cause or "status 137" in ending.cause

    async def test_the_proxy_ends_with_its_host(
        self, engine: SandboxEngine, container: Container
    ) -> None:
        await container.init("process.on('exit', () => { for (;;); })\n" + self.echo)
        container.http.close()
        assert "status 0" in (await engine.ending(container.sandbox)).cause
