"""A page that is wrong is found to be wrong, in each way that it can be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.desk import Desk, environment
from tests.docs.runner import run
from tests.needs import program

WRONG = {
    "another word": "```console\n$ echo ready\nfailed\n```\n",
    "a command that fails": "```sh\nfalse\n```\n",
    "a command that does not fail": "<!-- fails: 3 -->\n```sh\ntrue\n```\n",
    "no language": "```\nx\n```\n",
    "an unknown technique": '```toml\n[variants.fp32]\n[variants.a]\nsteps = ["x"]\n```\n',
    "a bad setting": "```toml\nmax_queue = -1\n```\n",
    "an unknown setting": "```toml\nmax_quue = 1\n```\n",
    "bad JSON": "```json\n{\n```\n",
    "bad YAML": "```yaml\na: [\n```\n",
    "Python that raises": "```python\nassert False\n```\n",
    "an example that says something else": "```pycon\n>>> 1 + 1\n3\n\n```\n",
    "another output": "```python\nprint('a')\n```\n\n<!-- output -->\n```text\nb\n```\n",
    "an output of nothing": "<!-- output -->\n```text\nb\n```\n",
    "an unknown target": "```sh\nmake nothing-of-the-kind\n```\n",
    "no reason": "<!-- not run -->\n```sh\nfalse\n```\n",
    "an open fence": "```sh\ntrue\n",
}

RIGHT = """
<!-- file: said.py -->
```python
print("int8", 5)
```

```console
$ python said.py
int8 7
```

<!-- not run: it would fail -->
```sh
false
```

<!-- fails: 3 -->
```sh
exit 3
```
"""


# Asked of a server that answers 422, whatever it is asked.
WRONG_OF_REFUSAL = {
    "an answer that nobody looks at": "```sh\ncurl -s URL\n```\n",
    "into a file": "```sh\ncurl -s -o answer URL\n```\n",
    "before a pipe": "```sh\ncurl -s URL | cat\n```\n",
    "by the console": "```console\n$ curl -s URL\n{...}\n```\n",
    "another status in the body": (
        '```sh\ncurl -s URL\n```\n\n<!-- output -->\n```json\n{"status":503}\n```\n'
    ),
    "another status in the line": (
        "```sh\ncurl -si URL\n```\n\n<!-- output -->\n```http\nHTTP/1.0 500 ...\n...\n```\n"
    ),
    "no status shown": "```sh\ncurl -s URL\n```\n\n<!-- output -->\n```json\n{...}\n```\n",
    "a refusal that is shown, of another that is not": (
        '```sh\ncurl -sf URL\n```\n\n<!-- output -->\n```json\n{"status":422}\n```\n'
    ),
}


def on(page: str, folder: Path) -> None:
    path = folder / "page.md"
    path.write_text(page)
    run(blocks(path), Desk(folder / "desk", {}, environment(folder / "home")))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_page_is_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017 - whichever says it
        on(WRONG[name], tmp_path)


def test_a_right_page_is_right(tmp_path: Path) -> None:
    on(RIGHT, tmp_path)


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that answers 422, whatever it is asked."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(422)
            self.end_headers()
            self.wfile.write(b'{"status":422}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", WRONG_OF_REFUSAL)
def test_a_refusal_that_a_page_does_not_show_is_found(
    name: str, tmp_path: Path, refusing: str
) -> None:
    program("curl", "curl")
    with pytest.raises(AssertionError):
        on(WRONG_OF_REFUSAL[name].replace("URL", refusing), tmp_path)


def test_a_refusal_that_a_page_shows_is_right(tmp_path: Path, refusing: str) -> None:
    program("curl", "curl")
    shown = '<!-- output -->\n```json\n{"status":422}\n```\n'
    on(f"```sh\ncurl -s {refusing}\n```\n\n{shown}", tmp_path)
