"""The page: what it says of each state of a store, that it leads nowhere else, and its headers."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.settings import Settings
from router.card import TensorSpec
from tests.stores import write_three, write_variant

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000a49444154789c6300"
    "0100000500010d0a2db40000000049454e44ae426082"
)


class Page(HTMLParser):
    """A page, parsed: its tags in order with their attributes, and its text."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(answer.text)
        self.close()
        assert self.open == []  # every tag was closed, in order

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@contextmanager
def serving(models: Path, settled: bool = True) -> Iterator[TestClient]:
    """A client of an app over `models`, once every variant is loaded or has failed."""
    done: list[bool] = []
    app = create_app(
        Settings(
            models=models, lanes=1, max_batch=1, drain_seconds=0, admin_port="off", grpc_port="off"
        ),
        lambda _: done.append(True),
    )
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        give_up = time.monotonic() + 20
        while settled and not done:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    write_variant(models, "echo", "refuses", fail_load=True)
    broken = write_variant(models, "echo", "changed")
    (broken / "echo.json").write_text('{"nan": true}', encoding="utf-8")
    (models / "echo" / "frontier.png").write_bytes(PIXEL)
    write_variant(models, "plain", "fp32")
    (models / "frontier.png").write_bytes(b"of no model")
    with serving(models) as client:
        yield client


@pytest.fixture(scope="module")
def page(client: TestClient) -> Page:
    return Page(client.get("/"))


def test_it_shows_each_variant_with_what_was_measured(page: Page) -> None:
    assert page.answer.status_code == 200
    assert page.answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Ready: 4 of 5 variants serve" in page.text
    assert "int8 echo int8 serves 94.00 % [93.0, 95.0] 1.00 / 1.00 ms 0.0139" in page.text
    assert "fp32reference" in page.text.replace(" ", "")


def test_it_says_why_a_variant_failed_and_what_was_left_out(page: Page) -> None:
    assert "refuses echo refuses failed echo refuses to load, as" in page.text
    assert "Left out of the store" in page.text
    assert "echo/changed: echo.json has digest" in page.text


def test_its_commands_can_be_copied_and_work(page: Page, client: TestClient) -> None:
    commands = re.findall(r"<code>(.*?)</code></pre>", page.answer.text, re.DOTALL)
    assert len(commands) == 6
    make_body = commands[0].partition(" |\n")[0].replace("&#x27;", "'").replace("&quot;", '"')
    body = subprocess.run(["bash", "-c", make_body], capture_output=True, check=True).stdout
    assert json.loads(body)["inputs"][0]["shape"] == [1, 4]
    answer = client.post("/v2/models/echo/infer", content=body)
    assert answer.status_code == 200
    assert all("http://127.0.0.1:8080/v2/models/" in command for command in commands)


def test_a_host_that_is_no_host_is_not_repeated(client: TestClient) -> None:
    text = client.get("/", headers={"host": "x'; rm -rf $HOME; '"}).text
    assert "rm -rf" not in text and "curl -s http://localhost/v2/models/echo" in text


def test_it_loads_nothing_from_elsewhere(page: Page) -> None:
    policy = page.answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self'; style-src 'sha256-")
    assert page.answer.headers["x-content-type-options"] == "nosniff"
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "/").startswith("/")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert not page.all("script") and not page.all("link")


def test_it_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == len(page.all("header")) == len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert all(image["alt"] for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))


def test_the_picture_is_there_or_missed(client: TestClient, page: Page) -> None:
    assert [image["src"] for image in page.all("img")] == ["/models/echo/frontier.png"]
    assert "No picture here." in page.text
    answer = client.get("/models/echo/frontier.png")
    assert answer.content == PIXEL and answer.headers["content-type"] == "image/png"
    missing = client.get("/models/plain/frontier.png")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "%2e", "echo%2ffp32", "..%2fmodels"])
def test_no_picture_outside_the_models_of_the_store(client: TestClient, name: str) -> None:
    # As it stands: a client would resolve the dots before it asks.
    transport = httpx.ASGITransport(client.app)
    path = f"/models/{name}/frontier.png".encode()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport) as raw:
            url = httpx.URL(scheme="http", host="127.0.0.1", raw_path=path)
            return await raw.send(httpx.Request("GET", url))

    answer = asyncio.run(ask())
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_picture_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (models / "echo" / "frontier.png").symlink_to(secret)
    with serving(models) as client:
        assert client.get("/models/echo/frontier.png").status_code == 404
        assert not Page(client.get("/")).all("img")


def test_while_loading_it_says_so_and_looks_again(tmp_path: Path) -> None:
    write_variant(tmp_path, "slow", "fp32", delay_ms=600)
    with serving(tmp_path, settled=False) as client:
        page = Page(client.get("/"))
        assert "Loading: 0 of 1 variants are settled" in page.text
        assert "Requests are answered 503 until a variant is warm." in page.text
        assert {"http-equiv": "refresh", "content": "2"} in page.all("meta")


def test_when_all_failed_it_says_why(tmp_path: Path) -> None:
    write_three(tmp_path, fail_load=True)
    with serving(tmp_path) as client:
        page = Page(client.get("/"))
    assert "Not ready: nothing of echo serves" in page.text
    assert "Nothing serves. Every variant failed to start" in page.text
    assert page.text.count("failed echo refuses to load") == 3
    assert not [meta for meta in page.all("meta") if "http-equiv" in meta]


def test_what_a_card_says_is_text_and_never_markup(tmp_path: Path) -> None:
    odd = "a'<b>&\"$HOME"
    spec = TensorSpec(name=odd, datatype="FP32", shape=(-1, 2))
    write_variant(tmp_path, "echo", "fp32", inputs=(spec,))
    with serving(tmp_path) as client:
        page = Page(client.get("/"))
        assert not page.all("b")
        shell = "".join(page.words).partition("python3 -c")[2].partition(" |\n")[0]
        body = subprocess.run(["bash", "-c", "python3 -c" + shell], capture_output=True, check=True)
        assert json.loads(body.stdout)["inputs"][0]["name"] == odd
        assert client.post("/v2/models/echo/infer", content=body.stdout).status_code == 200
