"""TLS with real handshakes: every port, the least version, clients' certificates, a reload."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tritonclient.grpc import InferenceServerClient, service_pb2, service_pb2_grpc

from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.service import Service
from gateway.settings import Settings, SettingsError
from gateway.trust import tls
from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import write_variant


class Authority:
    """Signs certificates; its own lies beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        own = self._certificate(self._name, self._key, ca=True)
        self.certificate = folder / "authority.crt"
        self.certificate.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key for `name` on 127.0.0.1; written over an earlier one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(subject, key, ca=False)
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, ca: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def trusted(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_variant(models, "echo", "fp32")
    return models


@pytest.fixture(scope="module")
def server(authority: Authority, models: Path) -> Iterator[Server]:
    certificate, key = authority.issue("server")
    with Server(
        models, trust=authority.trusted(), tls_certificate=certificate, tls_key=key, grpc_port=0
    ) as server:
        yield server


def shown(server: Server, authority: Authority) -> bytes:
    """The certificate that the server shows to a connection that comes now."""
    host, port = server.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain,
        authority.trusted().wrap_socket(plain, server_hostname=host) as secured,
    ):
        found = secured.getpeercert(binary_form=True)
        assert found
        return found


def test_every_port_speaks_tls(server: Server, authority: Authority) -> None:
    assert server.scheme == "https"
    assert server.infer().status_code == 200
    assert server.admin_url.startswith("https://")
    state = httpx.get(f"{server.admin_url}/admin/state", verify=authority.trusted())
    assert state.status_code == 200, state.text
    assert state.json()["ready"]
    client = InferenceServerClient(
        server.grpc_address, ssl=True, root_certificates=str(authority.certificate)
    )
    assert client.is_server_ready()
    client.close()


def test_no_port_speaks_plainly(server: Server) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{server.address}/v2/health/live", timeout=PATIENCE_S)
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=PATIENCE_S)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_what_is_older_than_tls_1_2_is_refused(server: Server, authority: Authority) -> None:
    host, port = server.address.split(":")
    for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = authority.trusted()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain:
            try:
                context.wrap_socket(plain, server_hostname=host).close()
            except ssl.SSLError:
                assert not taken
            else:
                assert taken


def test_a_new_certificate_is_shown_after_sighup_and_half_a_one_is_not(
    server: Server, authority: Authority
) -> None:
    first = shown(server, authority)
    _, key = authority.issue("server")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: shown(server, authority) != first, "the new certificate is shown")
    second = shown(server, authority)
    whole = key.read_bytes()
    key.write_text("not a key")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "settings and certificate stay as they were" in server.log(), "it is told")
    assert shown(server, authority) == second
    # By the admin port likewise, and there the answer tells.
    reload = server.admin_url + "/admin/settings/reload"
    context = authority.trusted()
    refused = httpx.post(reload, verify=context, timeout=PATIENCE_S)
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("tls_certificate and tls_key: expected")
    key.write_bytes(whole)
    authority.issue("server")
    told = httpx.post(reload, verify=context, timeout=PATIENCE_S)
    assert told.json() == {
        "changed": [], "needs_restart": [], "certificate_read": True, "other_workers_told": 0,
    }  # fmt: skip
    assert shown(server, authority) != second
    # Over the connection that was made before any of it, too.
    assert server.infer().status_code == 200


def test_no_setting_holds_beside_a_certificate_that_does_not(
    authority: Authority, models: Path
) -> None:
    files = authority.issue("unusable")
    chosen = Settings(models=models, lanes=1)
    other = chosen.model_copy(update={"max_queue": 7})
    service = Service(chosen, Journal(Metrics()), lambda: other, tls.Tls(*files, None))
    files[1].write_text("not a key")
    with pytest.raises(SettingsError, match="tls_certificate and tls_key"):
        service.reload()
    assert service.settings is chosen


def test_only_clients_of_the_authority(authority: Authority, models: Path) -> None:
    certificate, key = authority.issue("server")
    trust = authority.trusted()
    trust.load_cert_chain(*authority.issue("client"))
    with Server(
        models,
        trust=trust,
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=authority.certificate,
    ) as server:
        assert server.infer().status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://{server.address}/v2", verify=authority.trusted())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("certificate",), "tls_certificate: expected tls_key beside it"),
        (("key",), "tls_key: expected tls_certificate beside it"),
        (("client_ca",), "tls_client_ca: expected tls_certificate and tls_key"),
        (("certificate", "key"), "expected a certificate and its key in PEM"),
    ],
)
def test_what_is_not_usable_is_told(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    files = {f"tls_{name}": tmp_path / "none.pem" for name in given}
    with pytest.raises(SettingsError, match=said):
        tls.of(Settings(**files))
