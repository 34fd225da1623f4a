"""What URL a store may have, how it is shown, and where its copy lies."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway import settings
from gateway.settings import Settings, SettingsError
from gateway.store import urls
from gateway.store.plan import Plan, plan
from gateway.store.remote import Remote, StoreAway, UrlUnusable

BAD = [
    "s3://key:hunter2@bucket/models",
    "https://hunter2@host/models",
    "https://host/models?sig=hunter2",
    "https://host/models#hunter2",
    "simplecache::s3://hunter2",
    "://hunter2",
    "s3:// hunter2",
]


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_holds_a_secret_or_is_none_is_refused_unseen(url: str) -> None:
    with pytest.raises(ValueError, match=r"a folder, or a URL|a URL without user") as caught:
        urls.checked(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", BAD[:4])
def test_a_setting_that_is_refused_shows_no_secret(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load({"models": url})
    assert "hunter2" not in str(caught.value)
    assert "--models" in str(caught.value)


def test_a_folder_stays_a_folder_and_a_url_a_url() -> None:
    assert settings.load({"models": "some/models"}).models == Path("some/models")
    found = settings.load({"models": "s3://bucket/models/"})
    assert found.models == "s3://bucket/models"
    assert settings.shown(found)["models"] == "s3://bucket/models"


def test_each_url_has_a_copy_and_a_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # Alike but for what a folder's name leaves out.
    one, other = (Settings(models=f"s3://bucket/{name}") for name in ("a.b", "a-b"))
    assert one.store != other.store
    assert one.store.parent == tmp_path / "cache" / "gearshift"
    assert one.state_folder.parent == tmp_path / "state" / "gearshift"
    own = Settings(models="s3://bucket/a.b", store_cache=tmp_path / "own", state=tmp_path / "s")
    assert own.store == tmp_path / "own" / one.store.name
    assert own.state_folder == tmp_path / "s"
    assert Settings(models=tmp_path).store == tmp_path


def test_what_nothing_here_can_read_says_so() -> None:
    with pytest.raises(UrlUnusable, match="not known"):
        Remote("nosuchthing://bucket/models")
    with pytest.raises(UrlUnusable, match="needs packages that are missing"):
        Remote("dropbox://models")


def test_a_store_whose_library_connects_at_once_and_cannot_is_away() -> None:
    with socket.socket() as taken:  # bound, and not listening: whoever comes is refused
        taken.bind(("127.0.0.1", 0))
        url = f"ftp://127.0.0.1:{taken.getsockname()[1]}/models"
        with pytest.raises(StoreAway, match=f"^{url}: it cannot be read: .*refused"):
            Remote(url).listing()


def test_a_plan_fetches_what_differs_and_removes_what_is_gone() -> None:
    there = {("m", "new"): "1", ("m", "same"): "2", ("m", "other"): "3", ("m", "half"): None}
    here = {("m", "same"): "2", ("m", "other"): "old", ("m", "half"): "4", ("n", "gone"): "5"}
    assert plan(there, here) == Plan(fetch=(("m", "new"), ("m", "other")), remove=(("n", "gone"),))
    # What could not be read yet was never here, and is not fetched.
    assert plan({("m", "half"): None}, {}) == Plan((), ())
