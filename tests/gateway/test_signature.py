"""Signatures: what one covers, who made it, and what a server does with the rest."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.lifecycle import catalog, signature
from gateway.lifecycle.signature import NotSigned
from gateway.settings import SettingsError
from router.manifest import SIGNATURE_FILE
from tests.e2e.harness import PATIENCE_S, Server, until
from tests.stores import seal, write_variant


class Signer:
    """A key pair in PEM files."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.private, self.public = folder / f"{name}.key", folder / f"{name}.pub"
        self.private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.public.write_bytes(_pem(key.public_key()))


def _pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("keys"), "theirs")


@pytest.fixture
def folder(tmp_path: Path, signer: Signer) -> Path:
    """A signed variant."""
    found = write_variant(tmp_path / "models", "echo", "fp32")
    signature.sign(found, signer.private)
    return found


def test_what_is_signed_passes_and_is_whole(folder: Path, signer: Signer) -> None:
    check = signature.checker(signer.public)
    check(folder)
    assert catalog.read_variant(folder, check).card.variant == "fp32"
    assert [path.name for path in folder.parent.iterdir()] == ["fp32"]
    signature.sign(folder, signer.private)  # again
    check(folder)
    # A server that asks for no signature takes a signed one too.
    assert catalog.read(folder.parent.parent).problems == ()


def test_the_command_of_model_signing_verifies_it(folder: Path, signer: Signer) -> None:
    path = folder / SIGNATURE_FILE
    command = [
        sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--signature",
        str(path), "--ignore-paths", str(path), "--public_key", str(signer.public),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_is_not_signed_is_told_from_what_is_signed_wrongly(
    folder: Path, signer: Signer, other: Signer
) -> None:
    check = signature.checker(signer.public)
    with pytest.raises(NotSigned, match=r"its signature is not valid: .*Key mismatch"):
        signature.checker(other.public)(folder)
    whole = (folder / SIGNATURE_FILE).read_bytes()
    for garbage in (b"", b"{}", b"[]", b"\xff", whole[:-2], whole.replace(b"a", b"b")):
        (folder / SIGNATURE_FILE).write_bytes(garbage)
        with pytest.raises(NotSigned, match="its signature is not valid"):
            check(folder)
    (folder / SIGNATURE_FILE).unlink()
    with pytest.raises(NotSigned, match=r"not signed: model\.sig is missing"):
        check(folder)


def test_a_change_that_the_manifest_agrees_with_is_found(folder: Path, signer: Signer) -> None:
    """Whoever can write the store can write its digests; not its signature."""
    check = signature.checker(signer.public)
    (folder / "echo.json").write_text(json.dumps({"delay_ms": 1}))
    seal_without_signature(folder)
    assert catalog.read_variant(folder).card.variant == "fp32"
    with pytest.raises(catalog.VariantUnusable, match=r"its signature is not valid: .*mismatch"):
        catalog.read_variant(folder, check)


def test_a_file_more_is_found(folder: Path, signer: Signer) -> None:
    (folder / ".gitignore").write_text("what signing tools leave out by habit")
    with pytest.raises(NotSigned):
        signature.checker(signer.public)(folder)


def test_a_signature_that_leaves_files_out_is_none(folder: Path, signer: Signer) -> None:
    from model_signing import hashing, signing

    ignoring = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, "echo.json"])
    config = signing.Config().use_elliptic_key_signer(private_key=signer.private)
    config.set_hashing_config(ignoring).sign(folder, folder / SIGNATURE_FILE)
    with pytest.raises(NotSigned, match=r"leaves out echo\.json"):
        signature.checker(signer.public)(folder)


def test_a_signature_of_another_variant_is_none_of_this(folder: Path, signer: Signer) -> None:
    second = write_variant(folder.parent.parent, "echo", "int8")
    shutil.copy(folder / SIGNATURE_FILE, second / SIGNATURE_FILE)
    with pytest.raises(NotSigned):
        signature.checker(signer.public)(second)


def test_keys_that_are_none(folder: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    for content in (b"nonsense", _pem(rsa.generate_private_key(65537, 2048).public_key())):
        wrong.write_bytes(content)
        with pytest.raises(SettingsError, match=r"verify_signatures: expected a public key in PEM"):
            signature.checker(wrong)
        with pytest.raises(SettingsError, match="--key: expected a private key in PEM"):
            signature.sign(folder, wrong)
    with pytest.raises(SettingsError, match="No such file"):
        signature.checker(tmp_path / "absent")


def test_commands(tmp_path: Path, signer: Signer, other: Signer) -> None:
    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    unsigned = run("verify", str(models), "--signed-by", str(signer.public))
    assert unsigned.exit_code == 1
    assert "BROKEN  echo/fp32: it is not signed" in unsigned.stdout
    signed = run("sign", str(models), "--key", str(signer.private))
    assert (signed.exit_code, signed.stdout) == (0, "signed  echo/fp32\n")
    assert run("verify", str(models), "--signed-by", str(signer.public)).exit_code == 0
    assert run("verify", str(models), "--signed-by", str(other.public)).exit_code == 1


def test_a_server_loads_signed_variants_alone(tmp_path: Path, signer: Signer) -> None:
    models = tmp_path / "models"
    signature.sign(write_variant(models, "echo", "fp32"), signer.private)
    unsigned = write_variant(models, "echo", "int8", accuracy=0.94)
    with Server(models, verify_signatures=signer.public) as server:
        said = "left out: echo/int8: it is not signed: model.sig is missing"
        until(lambda: said in server.log(), "the reason is told")
        assert server.infer(version="fp32").status_code == 200
        assert server.infer(version="int8").status_code == 503
        # Nor is one that is dropped into the store later.
        write_variant(models, "echo", "small", accuracy=0.9)
        until(lambda: server.infer(version="small").status_code == 503, "it is found")
        variants = httpx.get(f"{server.admin_url}/admin/models/echo").json()["variants"]
        assert variants["small"]["why"] == "it is not signed: model.sig is missing"
        # Signing it is all that it takes.
        signature.sign(unsigned, signer.private)
        until(lambda: server.infer(version="int8").status_code == 200, "it is served")


def test_a_hostile_pickle_is_never_run(tmp_path: Path) -> None:
    """Whatever a file is called: digests right, contents a pickle that would leave a mark."""
    mark = tmp_path / "mark"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (mark,)  # type: ignore[return-value]

    models = tmp_path / "models"
    write_variant(models, "echo", "fp32")
    for name in ("scores.safetensors", "echo.json", "card.json", "program.pt2", "model.onnx"):
        folder = write_variant(models, "echo", name.replace(".", "-"), accuracy=0.9)
        (folder / name).write_bytes(pickle.dumps(Hostile()))
        seal(folder)
    with Server(models) as server:
        assert server.infer(version="fp32").status_code == 200
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert mark.exists(), "the pickle is not as hostile as it should be"


def test_nothing_of_the_server_unpickles() -> None:
    import gateway
    import router

    for package in (gateway, router):
        for path in Path(package.__file__).parent.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for word in ("import pickle", "import marshal", "import shelve", "import dill",
                         "joblib", "allow_pickle=True", "weights_only=False"):  # fmt: skip
                assert word not in text, f"{path}: {word}"


def seal_without_signature(folder: Path) -> None:
    """Write the manifest of everything in it but its signature."""
    kept = (folder / SIGNATURE_FILE).read_bytes()
    (folder / SIGNATURE_FILE).unlink()
    seal(folder)
    (folder / SIGNATURE_FILE).write_bytes(kept)
