"""What deploy/ holds fits together: compose file, Kubernetes manifests, systemd unit, Dockerfile.

None of it is run here. Kubernetes' own schemas come with a package; the rest are rules of ours.
"""

import re
import shutil
import subprocess
import sys
import tomllib

import kubernetes_validate
import pytest
import yaml

from metrics_page import ROOT
from node import binary

DEPLOY = ROOT / "deploy"
# The oldest and the newest Kubernetes that the manifests are held against.
KUBERNETES = ("1.29", "1.37")
# Highest exposure that `systemd-analyze security` may tell: 0 is best, 10 is worst.
EXPOSURE_MAX = 1.2


def read(path: str):
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))


def version() -> str:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    return cargo["workspace"]["package"]["version"]


def drain_deadline_s() -> float:
    text = (ROOT / "docs/stonechat.example.toml").read_text(encoding="utf-8")
    return int(re.search(r"^#drain_deadline_ms = (\d+)$", text, re.M)[1]) / 1000


def admin_port() -> str:
    text = (ROOT / "docs/stonechat.example.toml").read_text(encoding="utf-8")
    return re.search(r'^\[admin\].*?^#listen = "127.0.0.1:(\d+)"$', text, re.M | re.S)[1]


def accepts(tmp_path, config: str, environment: dict | None = None) -> None:
    """The program itself has nothing against this configuration."""
    file = tmp_path / "stonechat.toml"
    file.write_text(config, encoding="utf-8")
    done = subprocess.run(
        [binary(), "config", "--config", file],
        env=environment or {},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- compose -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict:
    return read("compose.yaml")


def test_compose_has_server_prometheus_and_grafana(compose):
    assert compose["services"].keys() == {"stonechat", "prometheus", "grafana"}


@pytest.mark.parametrize("name", ["stonechat", "prometheus", "grafana"])
def test_a_service_is_pinned_watched_and_confined(compose, name):
    service = compose["services"][name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), "an exact version"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD" and check["interval"] and check["timeout"] and check["retries"]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["logging"]["options"]["max-size"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{port} is open to everybody"


def test_volumes_of_compose_exist(compose):
    named = set()
    for name, service in compose["services"].items():
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
                assert mode == ["ro"], f"{name}: {source} can be written"
            else:
                named.add(source)
    assert named == compose["volumes"].keys()
    assert "stonechat-data:/data" in compose["services"]["stonechat"]["volumes"]


def test_compose_and_dockerfile_agree(compose):
    server = compose["services"]["stonechat"]
    docker = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert server["image"] == f"stonechat:{version()}"
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert "VOLUME /data" in docker and "USER 10001:10001" in docker
    assert str(server["healthcheck"]["test"][1:]) == str(["/usr/local/bin/stonechat", "status"])
    assert int(server["stop_grace_period"].removesuffix("s")) > drain_deadline_s()
    assert server["ulimits"]["nofile"]["hard"] >= 1 << 20
    for image in re.findall(r"^FROM (\S+)", docker, re.M):
        assert ":" in image and not image.endswith(":latest"), f"{image} is not pinned"


def test_prometheus_reaches_the_node_and_grafana_reaches_prometheus(compose):
    prometheus, grafana = compose["services"]["prometheus"], compose["services"]["grafana"]
    assert prometheus["network_mode"] == "service:stonechat"
    [scrape] = read("prometheus/prometheus.yml")["scrape_configs"]
    assert scrape["job_name"] == "stonechat"
    assert scrape["static_configs"] == [{"targets": [f"127.0.0.1:{admin_port()}"]}]
    mounted = {volume.split(":")[1] for volume in prometheus["volumes"]}
    assert set(read("prometheus/prometheus.yml")["rule_files"]) <= mounted
    [source] = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    # It shares the server's network, so it goes by the server's name.
    assert source["url"] == "http://stonechat:9090"
    [provider] = read("grafana/provisioning/dashboards/stonechat.yml")["providers"]
    assert any(volume.split(":")[1].startswith(provider["options"]["path"] + "/") for volume in grafana["volumes"])
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")


# --- Kubernetes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds() -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found.setdefault(manifest["kind"], []).append(manifest)
    return found


@pytest.fixture(scope="module")
def pod(kinds) -> dict:
    [workload] = kinds["StatefulSet"]
    return workload["spec"]["template"]["spec"]


@pytest.mark.parametrize("release", KUBERNETES)
def test_manifests_fit_the_schemas_of_kubernetes(kinds, release):
    for manifest in (manifest for group in kinds.values() for manifest in group):
        kubernetes_validate.validate(manifest, release, strict=True)


def test_a_misspelt_field_would_be_found(kinds):
    [budget] = kinds["PodDisruptionBudget"]
    wrong = {**budget, "spec": {**budget["spec"], "minimumAvailable": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_one_node_on_a_volume_that_stays(kinds):
    [workload] = kinds["StatefulSet"]
    spec = workload["spec"]
    assert spec["replicas"] == 1
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/data"
    [budget] = kinds["PodDisruptionBudget"]
    assert budget["spec"]["minAvailable"] == 1


def test_selectors_select_the_pod(kinds):
    [workload] = kinds["StatefulSet"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    assert workload["spec"]["serviceName"] in {service["metadata"]["name"] for service in kinds["Service"]}
    ports = {port["name"] for port in workload["spec"]["template"]["spec"]["containers"][0]["ports"]}
    for service in kinds["Service"]:
        assert service["spec"]["selector"] == labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert kinds["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"] == labels
    [policy] = kinds["NetworkPolicy"]
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    for rule in policy["spec"]["ingress"]:
        [port] = rule["ports"]
        assert port["port"] in ports
        assert port["port"] != "metrics" or rule["from"], "the admin API is open to the cluster"


def test_the_pod_is_probed_and_drained(pod):
    [container] = pod["containers"]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300, "the journal is replayed first"
    program, pause_s = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "/bin/sleep"
    assert pod["terminationGracePeriodSeconds"] > int(pause_s) + drain_deadline_s()


def test_the_pod_is_confined(pod):
    assert pod["automountServiceAccountToken"] is False
    own = pod["securityContext"]
    assert own["runAsNonRoot"] is True and own["runAsUser"] == own["fsGroup"] == 10001
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    # Otherwise each start opens admin.secret to the group.
    assert own["fsGroupChangePolicy"] == "OnRootMismatch"
    [container] = pod["containers"]
    inner = container["securityContext"]
    assert inner["allowPrivilegeEscalation"] is False and inner["readOnlyRootFilesystem"] is True
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
    assert container["image"] == f"stonechat:{version()}"


def test_the_certificate_comes_from_a_secret(kinds, pod):
    assert "Secret" not in kinds, "a secret in the repository"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "stonechat-tls"
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert "subPath" not in mounts["tls"], "a renewal would not appear"
    config = tomllib.loads(kinds["ConfigMap"][0]["data"]["stonechat.toml"])
    for key in ("tls_cert", "tls_key"):
        assert config["server"][key].startswith(mounts["tls"]["mountPath"] + "/tls.")


def test_the_configuration_is_one(kinds, pod, tmp_path):
    text = kinds["ConfigMap"][0]["data"]["stonechat.toml"]
    [container] = pod["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    config = tomllib.loads(text)
    assert environment["STONECHAT_SERVER__DATA_DIR"] == config["server"]["data_dir"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config["server"]["listen"].endswith(f":{ports['wss']}")
    assert config["admin"]["listen"].endswith(f":{ports['metrics']}")
    accepts(tmp_path, text, environment)


# --- systemd -------------------------------------------------------------------------------------


def test_the_unit_is_hardened():
    analyze = shutil.which("systemd-analyze")
    command = [analyze or "", "security", "--offline=true", DEPLOY / "stonechat.service"]
    done = subprocess.run(command, capture_output=True, text=True) if analyze else None
    if done is None or "--offline" in done.stderr:
        sys.__stderr__.write("NOT RUN: no systemd-analyze with --offline here\n")
        pytest.skip("no systemd-analyze")
    told = re.search(r"Overall exposure level for stonechat.service: ([\d.]+)", done.stdout)
    assert told, done.stdout + done.stderr
    assert float(told[1]) <= EXPOSURE_MAX
    # The page tells the same figure.
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert f"exposure level {EXPOSURE_MAX}" in page


def test_the_unit_leaves_time_to_drain():
    unit = (DEPLOY / "stonechat.service").read_text(encoding="utf-8")
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]) > drain_deadline_s()
    assert "LimitNOFILE=1048576" in unit
