"""What an operator changes while a real server serves: by the admin API, the protocol, a signal."""

from __future__ import annotations

import io
import re
import shutil
import signal
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_three, write_variant

VARIANTS = "/admin/models/echo/variants/"


class Admin(httpx.Client):
    """The admin API of a server; every call must succeed unless another status is expected."""

    def __init__(self, server: Server) -> None:
        found = re.search(r"^admin on (\S+)$", server.log(), re.MULTILINE)
        assert found is not None
        super().__init__(base_url=found[1], timeout=PATIENCE_S)

    def call(self, method: str, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
        answer = self.request(method, path, **more)
        assert answer.status_code == status, answer.text
        body: dict[str, Any] = answer.json()
        return body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_three(models)
    with Server(models, max_batch=4) as started:
        yield started


@pytest.fixture
def admin(server: Server) -> Iterator[Admin]:
    """Everything is as it lies in the store before each test."""
    with Admin(server) as client:
        client.call("POST", "/admin/models/echo/load")
        client.call("DELETE", "/admin/models/echo/pin")
        for variant in ("fp32", "int8", "small"):
            client.call("POST", VARIANTS + variant + "/enable")
        yield client


def chosen(server: Server, **headers: str) -> str:
    answer = server.infer(headers={f"Gearshift-{key}": value for key, value in headers.items()})
    assert answer.status_code == 200, answer.text
    variant: str = answer.headers["gearshift-variant"]
    return variant


def test_a_pin_answers_whoever_names_none(server: Server, admin: Admin) -> None:
    assert chosen(server) == "fp32"
    told = admin.call("PUT", "/admin/models/echo/pin", json={"variant": "small"})
    assert told["rollout"]["pinned"] == "small"
    answer = server.infer()
    assert answer.headers["gearshift-reason"] == "pinned; small is pinned by the operator"
    assert chosen(server, Variant="int8") == "int8"
    # A floor holds all the same: accuracy is never relaxed unless the caller lets it.
    floor = server.infer(headers={"Gearshift-Min-Accuracy": "0.93"})
    assert (floor.status_code, floor.json()["code"]) == (422, "unsatisfiable")
    refused = admin.call("POST", VARIANTS + "small/disable", 400)
    assert "small is pinned, so it can neither be disabled nor a shadow" in refused["detail"]
    admin.call("DELETE", "/admin/models/echo/pin")
    assert chosen(server) == "fp32"


def test_a_canary_gets_its_share_of_those_it_may_answer(server: Server, admin: Admin) -> None:
    admin.call("POST", VARIANTS + "small/canary", json={"share": 0.3})
    answers = [server.infer() for _ in range(300)]
    counts = Counter(answer.headers["gearshift-variant"] for answer in answers)
    assert counts.keys() == {"fp32", "small"}
    assert 50 < counts["small"] < 130  # five standard deviations from 90
    reasons = {a.headers["gearshift-reason"] for a in answers if "small" in str(a.headers)}
    assert "canary; small is a canary, which gets 0.3 of the requests it may answer" in reasons
    # None of those whose floor it does not meet, not even where it alone is fast enough.
    assert {chosen(server, **{"Min-Accuracy": "0.93"}) for _ in range(40)} == {"fp32"}
    assert chosen(server, Variant="small") == "small"
    admin.call("POST", VARIANTS + "small/canary", 400, json={"share": 0})
    admin.call("POST", VARIANTS + "int8/canary", 400, json={"share": 0.8})
    left = admin.call("POST", VARIANTS + "int8/disable")
    assert left["variants"]["int8"]["state"] == "disabled"
    refused = admin.call("POST", VARIANTS + "fp32/disable", 400)
    assert "one that leaves a variant of echo to answer" in refused["detail"]


def test_a_disabled_variant_is_not_there_for_callers(server: Server, admin: Admin) -> None:
    """404: it is no fault, and asking again does not help."""
    loaded = server.metric("gearshift_loaded_bytes")
    admin.call("POST", VARIANTS + "fp32/disable")
    assert chosen(server) == "int8"
    for name in ("fp32", "reference"):
        gone = server.infer(version=name)
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown-variant")
        assert "echo does not serve 'fp32': disabled by the operator" in gone.json()["detail"]
    assert "fp32" not in server.client.get("/v2/models/echo").json()["versions"]
    assert server.metric("gearshift_loaded_bytes") < loaded
    assert server.metric("gearshift_variant_ready", variant="fp32") == 0
    assert server.client.get("/v2/health/ready").status_code == 200
    admin.call("POST", VARIANTS + "fp32/enable")
    assert chosen(server) == "fp32"
    admin.call("POST", VARIANTS + "nothing/disable", 404)


def test_a_shadow_is_seen_by_nobody_but_the_operator(server: Server, admin: Admin) -> None:
    def rows(outcome: str) -> float:
        return server.metric("gearshift_shadow_rows_total", variant="small", outcome=outcome)

    before = server.batches(variant="small")
    admin.call("POST", VARIANTS + "small/shadow", json={"share": 1})
    answers = [server.infer(rows=2) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["gearshift-variant"] for answer in answers} == {"fp32"}
    until(lambda: rows("agree") == 10, "all rows were compared")
    assert rows("disagree") == 0
    assert server.batches(variant="small") == before  # no lane ran it
    hidden = server.infer(version="small")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "unknown-variant")
    explained = server.infer(headers={"Gearshift-Explain": "true"})
    assert "small" not in explained.text


def test_aliases_are_names_wherever_a_variant_is_named(server: Server, admin: Admin) -> None:
    admin.call("PUT", "/admin/models/echo/aliases/stable", json={"variant": "int8"})
    assert server.infer(version="stable").json()["model_version"] == "int8"
    assert chosen(server, Variant="stable") == "int8"
    metadata = server.client.get("/v2/models/echo/versions/stable").json()
    assert metadata["versions"] == ["int8"]
    assert server.client.get("/v2/models/echo/versions/stable/ready").status_code == 200
    admin.call("PUT", "/admin/models/echo/aliases/stable", json={"variant": "small"})
    assert server.infer(version="stable").json()["model_version"] == "small"
    for alias, variant, status in (
        ("reference", "int8", 400), ("int8", "small", 400), ("x", "nothing", 404), ("x", 3, 400),
    ):  # fmt: skip
        admin.call("PUT", f"/admin/models/echo/aliases/{alias}", status, json={"variant": variant})
    admin.call("DELETE", "/admin/models/echo/aliases/stable")
    assert server.infer(version="stable").status_code == 404


def test_the_repository_extension(server: Server, admin: Admin) -> None:
    del admin

    def post(path: str, **body: Any) -> httpx.Response:
        return server.client.post("/v2/repository/" + path, json=body)

    def index(**body: Any) -> dict[str, str]:
        return {one["version"]: one["state"] for one in post("index", **body).json()}

    ready = dict.fromkeys(("fp32", "int8", "small"), "READY")
    assert index() == index(ready=True) == ready
    assert post("models/echo/unload", parameters={"unload_dependents": True}).status_code == 200
    assert server.metric("gearshift_loaded_bytes") == 0
    assert index() == dict.fromkeys(ready, "UNAVAILABLE")
    assert index(ready=True) == {}
    gone = server.infer()
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown-model")
    assert "unloaded by the operator" in gone.json()["detail"]
    assert server.client.get("/v2/models/echo/ready").status_code == 404
    assert post("models/echo/load").status_code == 200
    assert chosen(server) == "fp32"
    assert post("models/nothing/load").status_code == 404
    assert post("models/nothing/unload").status_code == 404
    assert post("models/echo/load", parameters={"config": "{}"}).status_code == 400
    assert post("index", ready="yes").status_code == 400


def archive(folder: Path, *more: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path in folder.iterdir():
            tar.add(path, path.name)
        for member in more:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return made.getvalue()


def test_a_variant_is_sent_and_deleted(server: Server, admin: Admin, tmp_path: Path) -> None:
    folder = write_variant(tmp_path, "echo", "sent", accuracy=0.97)
    whole = archive(folder)
    told = admin.call("PUT", VARIANTS + "sent", content=whole)
    assert told["variants"]["sent"]["state"] == "ready"
    assert chosen(server) == "sent"
    # What is no whole build of it is not put into the store.
    outside = tarfile.TarInfo("../../outside")
    outside.size = 1
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    extra = tarfile.TarInfo("extra.bin")
    extra.size = 1
    for body, why in (
        (b"nonsense", "a tar archive"),
        (whole[:200], "a tar archive"),
        (archive(folder, outside), "plain files without folders, got '../../outside'"),
        (archive(folder, link), "plain files without folders, got 'link'"),
        (archive(folder, extra), "extra.bin is not in the manifest"),
    ):
        refused = admin.call("PUT", VARIANTS + "sent", 400, content=body)
        assert why in refused["detail"]
    misnamed = admin.call("PUT", VARIANTS + "other", 400, content=whole)
    assert "the card is of echo/sent, the folder is echo/other" in misnamed["detail"]
    assert chosen(server) == "sent"
    admin.call("DELETE", VARIANTS + "sent")
    assert server.infer(version="sent").status_code == 404
    admin.call("DELETE", VARIANTS + "sent", 404)
    for name in ("%2e%2e", "..%2f..%2fetc", "UPPER"):
        assert admin.delete(VARIANTS + name).status_code in (400, 404, 405)


def test_an_alias_stands_wherever_a_call_names_a_variant(server: Server, admin: Admin) -> None:
    admin.call("PUT", "/admin/models/echo/aliases/stable", json={"variant": "int8"})
    told = admin.call("PUT", "/admin/models/echo/pin", json={"variant": "stable"})
    assert told["rollout"]["pinned"] == "int8"
    admin.call("DELETE", "/admin/models/echo/pin")
    told = admin.call("POST", VARIANTS + "stable/disable")
    assert told["rollout"]["disabled"] == ["int8"]
    assert admin.call("POST", VARIANTS + "stable/enable")["rollout"]["disabled"] == []
    told = admin.call("PUT", "/admin/models/echo/aliases/other", json={"variant": "stable"})
    assert told["rollout"]["aliases"] == {"stable": "int8", "other": "int8"}
    told = admin.call("POST", VARIANTS + "reference/canary", json={"share": 0.5})
    assert told["rollout"]["canaries"] == {"fp32": 0.5}
    assert chosen(server, Variant="other") == "int8"
    # A build is sent and deleted by the name of its folder.
    admin.call("DELETE", VARIANTS + "stable", 404)
    for alias in ("stable", "other"):
        admin.call("DELETE", f"/admin/models/echo/aliases/{alias}")


def test_what_is_gone_from_the_store_is_taken_back(tmp_path: Path) -> None:
    write_three(tmp_path)
    with Server(tmp_path, max_batch=4, watch_seconds=0.05) as server, Admin(server) as admin:

        def variants() -> dict[str, dict[str, str]]:
            told: dict[str, dict[str, str]] = admin.call("GET", "/admin/models/echo")["variants"]
            return told

        admin.call("POST", VARIANTS + "small/canary", json={"share": 0.9})
        shutil.rmtree(tmp_path / "echo" / "small")
        until(lambda: "small" not in variants(), "it is gone")
        admin.call("POST", VARIANTS + "small/canary", 404, json={"share": 0.9})
        assert admin.call("POST", VARIANTS + "small/enable")["rollout"]["canaries"] == {}
        # What is deleted is forgotten, whether its folder is there or not.
        admin.call("POST", VARIANTS + "int8/shadow", json={"share": 0.9})
        admin.call("PUT", "/admin/models/echo/aliases/stable", json={"variant": "fp32"})
        admin.call("PUT", "/admin/models/echo/aliases/next", json={"variant": "int8"})
        admin.call("DELETE", VARIANTS + "int8")
        rollout = admin.call("GET", "/admin/models/echo")["rollout"]
        assert (rollout["shadows"], rollout["aliases"]) == ({}, {"stable": "fp32"})
        admin.call("DELETE", VARIANTS + "int8", 404)
        # A variant that comes by the name of an alias does not take that over.
        write_variant(tmp_path, "echo", "stable", accuracy=0.9)
        until(lambda: variants().get("stable", {}).get("state") == "ready", "it is loaded")
        assert variants()["stable"]["why"] == "it cannot be named: the alias stable is fp32"
        assert "echo/stable cannot be named: the alias stable is fp32" in server.log()
        assert server.infer(version="stable").json()["model_version"] == "fp32"


def test_a_store_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_three(models)
    sent = archive(write_variant(tmp_path, "echo", "sent"))
    with Server(models, max_batch=4) as server, Admin(server) as admin:
        pin = {"json": {"variant": "int8"}}
        (models / ".gearshift").write_text("a file where the state folder should be")
        refused = admin.call("PUT", "/admin/models/echo/pin", 503, **pin)
        assert refused["detail"] == "the state folder cannot be written: Not a directory"
        (models / ".gearshift").unlink()
        models.rename(tmp_path / "elsewhere")
        for _ in range(2):
            assert (
                "the store is gone"
                in admin.call("PUT", "/admin/models/echo/pin", 503, **pin)["detail"]
            )
            admin.call("PUT", VARIANTS + "sent", 503, content=sent)
        assert not models.exists()
        models.mkdir()  # as the place where a disk was mounted looks without it
        refused = admin.call("PUT", VARIANTS + "sent", 503, content=sent)
        assert "nothing is there any more" in refused["detail"]
        assert not [*models.iterdir()]
        models.rmdir()
        (tmp_path / "elsewhere").rename(models)
        admin.call("PUT", VARIANTS + "sent", content=sent)
        assert admin.call("PUT", "/admin/models/echo/pin", **pin)["rollout"]["pinned"] == "int8"


def test_settings_are_read_again(tmp_path: Path) -> None:
    write_three(tmp_path / "models")
    config = tmp_path / "settings.toml"
    config.write_text("")
    with Server(tmp_path / "models", config=config, max_batch=4) as server, Admin(server) as admin:
        assert chosen(server) == "fp32"
        config.write_text('default_optimize = "cost"\nmax_header_bytes = 4096\n')
        told = admin.call("POST", "/admin/settings/reload")
        assert told == {
            "changed": ["default_optimize"], "needs_restart": ["max_header_bytes"],
            "certificate_read": False, "other_workers_told": 0,
        }  # fmt: skip
        assert chosen(server) == "small"
        settings = admin.call("GET", "/admin/state")["settings"]
        assert settings["default_optimize"] == "cost"
        assert settings["max_header_bytes"] == 64 << 10
        # What makes no sense changes nothing, and says why.
        for text, why in (
            ('default_optimize = "beauty"', "default_optimize"),
            ("model_weights = {ecko = 2}", "model_weights: expected some of echo"),
            ("memory_limit_mb = 0.001", "memory_limit_mb: expected at least 0.004"),
            ("nonsense", "not TOML"),
        ):
            config.write_text(text)
            refused = admin.call("POST", "/admin/settings/reload", 400)["detail"]
            assert why in refused and "settings that make sense" not in refused
            assert chosen(server) == "small"
        config.write_text("memory_limit_mb = 0.008\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.metric("gearshift_loaded_bytes") == 8000, "two of three are loaded")
        assert chosen(server) == "fp32"
        config.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        kept = "settings and certificate stay as they were"
        until(lambda: kept in server.log(), "it was refused")
        assert chosen(server) == "fp32"


def test_what_was_wanted_outlives_the_process(tmp_path: Path) -> None:
    write_three(tmp_path)
    with Server(tmp_path, max_batch=4) as server, Admin(server) as admin:
        admin.call("PUT", "/admin/models/echo/pin", json={"variant": "int8"})
        admin.call("POST", VARIANTS + "small/disable")
    with Server(tmp_path, max_batch=4) as server:
        assert chosen(server) == "int8"
        assert server.infer(version="small").status_code == 404
        assert "echo: 2 of 3 serve: fp32, int8" in server.log()


def test_other_worker_processes_follow(tmp_path: Path) -> None:
    write_three(tmp_path)
    with Server(tmp_path, max_batch=4, workers=2, watch_seconds=0.1) as server:
        until(lambda: server.metric("gearshift_worker_up") == 2, "both take requests")
        with Admin(server) as admin:
            admin.call("PUT", "/admin/models/echo/pin", json={"variant": "small"})

        def answers() -> set[str]:
            # A connection of its own each, so that both workers are met.
            asked = (
                httpx.post(f"http://{server.address}/v2/models/echo/decide") for _ in range(20)
            )
            return {answer.json()["variant"] for answer in asked}

        until(lambda: answers() == {"small"}, "all follow")
