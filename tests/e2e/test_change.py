"""Change without harm, on a real server under load: builds come, go and replace one another."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant

QUICK = {"max_batch": 4, "watch_seconds": 0.1}


def write(models: Path, variant: str, model: str = "echo", **more: Any) -> Path:
    ms = more.pop("ms", 2)
    settings = {"latency_ms_at_1": ms, "latency_ms_at_32": 8 * ms, "delay_ms": ms, "mirror": True}
    return write_variant(models, model, variant, **(settings | more))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    store = tmp_path / "models"
    write(store, "fp32", accuracy=0.95)
    write(store, "int8", accuracy=0.93, ms=1)
    return store


def replace_build(models: Path, variant: str, **more: Any) -> None:
    """Another build in a variant's place, as a careful operator puts it there."""
    fresh = write(models / ".fresh", variant, **more)
    place = models / "echo" / variant
    place.rename(models / ".before")
    fresh.rename(place)
    shutil.rmtree(models / ".before")
    shutil.rmtree(models / ".fresh")


class Traffic:
    """What came back, while requests of several kinds are sent all the while."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, httpx.Response]] = []
        self.stop = threading.Event()

    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for _, answer in self.answers)


@contextmanager
def traffic(server: Server, *kinds: dict[str, str]) -> Iterator[Traffic]:
    made = Traffic()

    def send(headers: dict[str, str]) -> None:
        while not made.stop.is_set():
            made.answers.append((str(headers), server.infer(headers=headers)))

    threads = [threading.Thread(target=send, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def accuracy(server: Server, variant: str) -> str:
    return server.infer(version=variant).headers.get("gearshift-accuracy", "")


def test_builds_change_under_load_and_nothing_fails(models: Path) -> None:
    kinds = ({}, {"Gearshift-Optimize": "latency"}, {"Gearshift-Variant": "int8"})
    with Server(models, lanes=2, **QUICK) as server, traffic(server, *kinds, *kinds) as sent:
        for round_ in range(3):
            value = 0.951 + 0.001 * round_
            replace_build(models, "fp32", accuracy=value)
            until(lambda v=value: accuracy(server, "fp32") == f"{v:.6g}", "the new build serves")  # type: ignore[misc]
            write(models, "extra", accuracy=0.96)
            until(lambda: server.infer(version="extra").status_code == 200, "it was added")
            shutil.rmtree(models / "echo" / "extra")
            until(lambda: server.infer(version="extra").status_code == 404, "it was removed")
        frees = until(
            lambda: server.metric("gearshift_variant_frees_total") == 6, "what has left is freed"
        )
        assert server.metric("gearshift_variant_swaps_total", variant="fp32") == 3
        # One build serves as each variant: those before it are not shown any more.
        assert server.metric("gearshift_variant_info") == 2
    assert frees
    assert sent.statuses().keys() == {200}
    assert len(sent.answers) > 100
    known = {"0.95", "0.951", "0.952", "0.953", "0.93", "0.96"}
    for _, answer in sent.answers:
        assert answer.headers["gearshift-accuracy"] in known


def test_a_queued_request_is_answered_by_the_build_that_it_was_promised(models: Path) -> None:
    """A floor that the old build meets and the new one does not, across the change."""
    write(models, "slow", accuracy=0.99, ms=150)
    floor = {"Gearshift-Min-Accuracy": "0.97"}  # slow alone meets it
    with Server(models, **QUICK) as server, traffic(server, *[floor] * 6) as sent:
        until(lambda: len(sent.answers) > 6, "it is answered")
        replace_build(models, "slow", accuracy=0.94, ms=1)
        until(lambda: 422 in sent.statuses(), "the new build cannot meet it")
    assert sent.statuses().keys() == {200, 422}
    for _, answer in sent.answers:
        if answer.status_code == 200:
            assert answer.headers["gearshift-accuracy"] == "0.99"
            assert float(answer.headers["server-timing"].rpartition("=")[2]) > 100


def test_a_build_that_cannot_be_loaded_leaves_the_old_one_serving(models: Path) -> None:
    with Server(models, **QUICK) as server, traffic(server, {}) as sent:
        replace_build(models, "fp32", accuracy=0.97, fail_load=True)
        failed = until(
            lambda: server.metric("gearshift_variant_load_failures_total", variant="fp32"),
            "the new build has failed",
        )
        assert failed == 1
        assert accuracy(server, "fp32") == "0.95"
        listed = server.client.post("/v2/repository/index").json()
        (state,) = [one for one in listed if one["version"] == "fp32"]
        assert state["state"] == "READY"
        assert "a newer build cannot be served, so the one before it serves: " in state["reason"]
        assert "echo.json asks" in state["reason"]
        assert "a newer build cannot be served" in server.log()
        # One that is not whole does no more harm, and a good one takes over.
        (models / "echo" / "fp32" / "card.json").write_text("{}")
        (models / "echo" / "fp32" / "manifest.json").touch()
        until(lambda: "card.json has digest" in server.log(), "it was looked at")
        assert accuracy(server, "fp32") == "0.95"
        replace_build(models, "fp32", accuracy=0.98)
        until(lambda: accuracy(server, "fp32") == "0.98", "the good one serves")
        listed = server.client.post("/v2/repository/index").json()
        assert {one["reason"] for one in listed} == {""}
    assert sent.statuses().keys() == {200}


def test_a_whole_model_comes_and_goes(models: Path) -> None:
    with Server(models, **QUICK) as server, traffic(server, {}) as sent:
        assert server.infer("other").status_code == 404
        write(models, "fp32", model="other", accuracy=0.9)
        until(lambda: server.infer("other").status_code == 200, "it serves")
        assert server.metric("gearshift_requests_total", model="other", outcome="ok") == 1
        assert server.client.get("/v2/health/ready").status_code == 200
        shutil.rmtree(models / "other")
        until(lambda: server.infer("other").status_code == 404, "it is gone")
        until(lambda: "other" not in server.client.post("/v2/repository/index").text, "all of it")
    assert sent.statuses().keys() == {200}


def test_what_is_broken_says_why_and_is_mended_by_being_whole(models: Path) -> None:
    write(models, "torn", accuracy=0.9)
    card = (models / "echo" / "torn" / "card.json").read_bytes()
    (models / "echo" / "torn" / "card.json").write_bytes(card + b" ")
    (models / "empty").mkdir()  # what a compress that failed leaves behind is no model
    (models / "hollow" / "fp32").mkdir(parents=True)
    with Server(models, **QUICK) as server:
        assert server.infer("empty").status_code == 404
        hollow = server.infer("hollow")
        assert hollow.status_code == 503
        assert "fp32: manifest.json cannot be read" in hollow.json()["detail"]
        torn = server.infer(version="torn")
        assert torn.status_code == 503
        assert "echo/torn is failed: card.json has digest" in torn.json()["detail"]
        assert server.metric("gearshift_variant_ready", variant="torn") == 0
        assert 'variant="torn"' in server.client.get("/metrics").text
        assert server.infer().status_code == 200
        # Somebody copies what was missing, after the manifest.
        (models / "echo" / "torn" / "card.json").write_bytes(card)
        until(lambda: server.infer(version="torn").status_code == 200, "it is whole")
        write(models / ".b", "fp32", model="hollow", accuracy=0.9)
        for path in (models / ".b" / "hollow" / "fp32").iterdir():
            shutil.copy(path, models / "hollow" / "fp32")
        until(lambda: server.infer("hollow").status_code == 200, "and so is the model")


def test_a_file_that_is_changed_in_place_is_never_run(models: Path) -> None:
    write(models, "small", accuracy=0.9, ms=1)
    whole = {name: models / "echo" / name / "echo.json" for name in ("fp32", "int8", "small")}
    texts = {name: path.read_text() for name, path in whole.items()}
    with Server(models, **QUICK) as server:

        def call(path: str, **body: Any) -> dict[str, Any]:
            url = f"{server.admin_url}/admin/models/echo{path}"
            told: dict[str, Any] = httpx.post(url, json=body, timeout=PATIENCE_S).json()
            return told.get("variants", told)

        def why(variant: str) -> str:
            url = f"{server.admin_url}/admin/models/echo"
            told: str = httpx.get(url).json()["variants"][variant]["why"]
            return told

        whole["small"].write_text('{"delay_ms": 1}')
        call("/variants/small/disable")
        assert call("/variants/small/enable")["small"]["state"] == "failed"
        assert "echo.json has digest" in why("small")
        assert server.infer(version="small").status_code == 503
        whole["small"].write_text(texts["small"])
        until(lambda: server.infer(version="small").status_code == 200, "it is mended")
        whole["int8"].write_text('{"delay_ms": 1}')
        assert call("/variants/int8/shadow", share=1)["int8"]["state"] == "shadow"
        assert server.infer().status_code == 200
        until(lambda: "echo.json has digest" in why("int8"), "the shadow does not run")
        whole["fp32"].write_text('{"delay_ms": 1}')
        assert server.infer().headers["gearshift-variant"] == "fp32"  # what is loaded serves on
        call("/unload")
        call("/load")
        assert "echo.json has digest" in why("fp32")
        assert server.infer().headers["gearshift-variant"] == "small"


def test_a_store_that_is_gone_changes_nothing(models: Path) -> None:
    with Server(models, **QUICK) as server, traffic(server, {}) as sent:
        models.rename(models.parent / "elsewhere")
        until(lambda: server.metric("gearshift_store_readable") == 0, "it was noticed")
        assert "what is loaded serves on" in server.log()
        models.mkdir()  # as the place where a disk was mounted looks without it
        before = len(sent.answers)
        until(lambda: len(sent.answers) > before + 200, "it serves on")
        assert server.metric("gearshift_store_readable") == 0
        models.rmdir()
        (models.parent / "elsewhere").rename(models)
        until(lambda: server.metric("gearshift_store_readable") == 1, "it is back")
        write(models, "extra", accuracy=0.96)
        until(lambda: server.infer(version="extra").status_code == 200, "and watched")
    assert sent.statuses().keys() == {200}


def test_within_the_memory_limit_the_old_build_makes_room_for_the_new(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for variant in ("fp32", "int8"):
        write(models, variant, accuracy=0.95, resident_bytes=2_000_000)
    with (
        Server(models, memory_limit_mb=4, residency_seconds=0.3, **QUICK) as server,
        traffic(server, {}) as sent,
    ):
        replace_build(models, "int8", accuracy=0.97, resident_bytes=2_000_000)
        until(lambda: accuracy(server, "int8") == "0.97", "the new build serves")
        assert server.metric("gearshift_loaded_bytes") == 4_000_000
    assert sent.statuses().keys() == {200}
