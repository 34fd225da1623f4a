"""compose.yaml: valid by the published schema, and its parts fit each other and the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from deploy.docker import dockerfile
from gateway.settings import Settings
from tests.needs import program

DEPLOY = Path(__file__).parents[2] / "deploy"
FILE = DEPLOY / "compose.yaml"
SCRAPING = DEPLOY / "docker" / "prometheus.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _mounts(service: str) -> dict[str, tuple[str, bool]]:
    """Where a service sees what, and whether it may only read it."""
    found = {}
    for volume in SERVICES[service]["volumes"]:
        source, target, *mode = volume.replace(":-", "=").split(":")
        found[target] = (source.replace("=", ":-"), mode == ["ro"])
    return found


def _checked(file: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "check-jsonschema"]
    return subprocess.run(
        [*command, "--builtin-schema", "vendor.compose-spec", str(file)],
        capture_output=True,
        text=True,
    )


def test_it_is_valid_by_the_published_schema(tmp_path: Path) -> None:
    ran = _checked(FILE)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    broken = tmp_path / "compose.yaml"
    broken.write_text(FILE.read_text("utf-8").replace("read_only:", "readonly:"), "utf-8")
    assert _checked(broken).returncode == 1


def test_what_is_mounted_and_built_is_there() -> None:
    for name, service in SERVICES.items():
        for source, read_only in _mounts(name).values():
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
                assert read_only
            else:
                volume = source.removeprefix("${MODELS:-").removesuffix("}")
                assert volume in COMPOSE["volumes"]
        if build := service.get("build"):
            context = (DEPLOY / build["context"]).resolve()
            stages = dockerfile.read(context / build["dockerfile"])
            assert service["image"] == f"gearshift-{stages[-1].name}"
        else:
            assert service["image"].rpartition(":")[2] not in ("", "latest")


def test_nothing_can_do_more_than_it_must_nor_is_open_to_others() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_what_may_write_nowhere_else_has_a_folder_for_what_is_temporary() -> None:
    for name in ("gateway", "demo", "grafana"):
        assert SERVICES[name]["tmpfs"] == ["/tmp"], name


def test_whoever_looks_at_grafana_changes_nothing() -> None:
    own = SERVICES["grafana"]["environment"]
    assert own["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert own["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert not {name for name in own if "ADMIN_PASSWORD" in name}


def test_the_gateway_has_its_ports_its_folders_and_the_time_to_drain() -> None:
    gateway = SERVICES["gateway"]
    port = Settings().port
    assert gateway["ports"] == [f"127.0.0.1:{one}:{one}" for one in (port, port + 1)]
    image = dockerfile.read(DEPLOY / "docker" / "serve.Dockerfile")[1].pairs("ENV")
    mounts = _mounts("gateway")
    assert mounts[image["GEARSHIFT_MODELS"]][1]
    assert not mounts[image["GEARSHIFT_STATE"]][1]
    assert int(gateway["stop_grace_period"].removesuffix("s")) >= Settings().drain_seconds + 5
    # What is built is what is served.
    out = SERVICES["demo"]["command"][SERVICES["demo"]["command"].index("--out") + 1]
    assert _mounts("demo")[out][0] == mounts[image["GEARSHIFT_MODELS"]][0]


def test_prometheus_scrapes_the_gateway_and_knows_the_rules(tmp_path: Path) -> None:
    own = yaml.safe_load(SCRAPING.read_text("utf-8"))
    usual = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert own["global"] == usual["global"]
    (scraped,), (usually,) = own["scrape_configs"], usual["scrape_configs"]
    for member in ("job_name", "metrics_path"):
        assert scraped.get(member, "/metrics") == usually.get(member, "/metrics")
    assert scraped["metrics_path"] == "/metrics"
    ((target,),) = [one["targets"] for one in own["scrape_configs"][0]["static_configs"]]
    assert target == f"gateway:{Settings().port}"
    assert f"{SERVICES['gateway']['ports'][0]}".endswith(f":{Settings().port}")
    (folder,) = {
        place for place, (source, _) in _mounts("prometheus").items() if source == "./prometheus"
    }
    # Checked where the container would see them.
    here = SCRAPING.read_text("utf-8").replace(folder, str(DEPLOY / "prometheus"))
    copy = tmp_path / "prometheus.yml"
    copy.write_text(here, encoding="utf-8")
    names = {Path(one).name for one in own["rule_files"]}
    assert names == {Path(one).name for one in usual["rule_files"]}
    command = [program("promtool", "prometheus"), "check", "config", str(copy)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_grafana_comes_up_with_the_dashboards() -> None:
    folder = DEPLOY / "grafana"
    mounts = {place: source for place, (source, _) in _mounts("grafana").items()}
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"
    (provider,) = yaml.safe_load(
        (folder / "provisioning" / "dashboards" / "gearshift.yaml").read_text("utf-8")
    )["providers"]
    assert mounts[provider["options"]["path"]] == "./grafana"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / Path(home).name).is_file()
    assert str(Path(home).parent) == provider["options"]["path"]
    (source,) = yaml.safe_load(
        (folder / "provisioning" / "datasources" / "gearshift.yaml").read_text("utf-8")
    )["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert SERVICES[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
