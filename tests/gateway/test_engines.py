"""Every engine that the folder holds keeps the same contract."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway import engines
from gateway.engines import EngineError, Program, UntrustedArtifact
from router.card import EngineRecord, TensorSpec, VariantCard

IMAGE = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 8, 8))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 10))
Made = tuple[Path, VariantCard]


def card_of(engine: str, format_: str, precision: str = "fp32") -> VariantCard:
    """A card with what an engine reads."""
    return VariantCard.model_construct(
        precision=precision,
        engine=EngineRecord.model_construct(name=engine, format=format_),
        inputs=(IMAGE,),
        outputs=(LOGITS,),
    )


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).random((rows, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """The tiny network, lowered to each engine that something can be lowered to, and echo."""
    from compressors import lowering, usertask
    from compressors.interface import describe
    from compressors.technique import Network

    task = usertask.load(str(Path(__file__).parents[1] / "tiny_task.py"))
    network = task.network()
    interface = describe(task, network, task.samples("validation"))
    made = {"echo": (tmp_path_factory.mktemp("echo"), card_of("echo", "echo"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-compiler-here")  # an exported program: compiling takes a minute
        for name in lowering.names():
            folder = tmp_path_factory.mktemp(name)
            target = lowering.get(name)
            target.lower(Network(network), interface, folder)
            made[name] = (folder, card_of(name, target.format(Network(network))))
    return made


@pytest.fixture(params=engines.names())
def made(request: pytest.FixtureRequest, lowered: dict[str, Made]) -> Made:
    assert request.param in lowered, "an engine without a lowering needs its own artifact here"
    return lowered[request.param]


# The engines that look at their files and inputs; echo does neither.
computing = pytest.mark.parametrize(
    "made", [name for name in engines.names() if name != "echo"], indirect=True
)


def load(made: Made, **options: object) -> Program:
    folder, card = made
    settings = {"threads": 1, "trusted": True, **options}
    return engines.get(card.engine.name).load(folder, card, **settings)  # type: ignore[arg-type]


@pytest.fixture
def program(made: Made) -> Iterator[Program]:
    loaded = load(made)
    yield loaded
    loaded.close()


def test_engine_names_its_formats_and_version(made: Made) -> None:
    engine = engines.get(made[1].engine.name)
    assert made[1].engine.format in engine.formats
    assert engine.version()


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 32])
def test_any_batch_gives_one_row_each(program: Program, rows: int) -> None:
    outputs = program.infer({"image": images(rows)})
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape == (rows, 10)
    assert outputs["logits"].dtype == np.float32


def test_rows_do_not_depend_on_their_neighbours(program: Program) -> None:
    batch = images(6)
    together = program.infer({"image": batch})["logits"]
    alone = np.concatenate([program.infer({"image": batch[i : i + 1]})["logits"] for i in range(6)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_outputs_belong_to_the_caller(program: Program) -> None:
    first = program.infer({"image": images(4)})["logits"]
    kept = first.copy()
    program.infer({"image": -images(4)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 5.0  # writable
    assert not np.array_equal(program.infer({"image": images(4)})["logits"], first)


@pytest.mark.parametrize("form", ["read-only", "strided", "other datatype"])
def test_awkward_arrays_compute_the_same(program: Program, form: str) -> None:
    plain = images(4)
    expected = program.infer({"image": plain})["logits"]
    given = {
        "read-only": np.frombuffer(plain.tobytes(), np.float32).reshape(plain.shape),
        "strided": np.repeat(plain, 2, axis=0)[::2],
        "other datatype": plain.astype(np.float64),
    }[form]
    np.testing.assert_allclose(program.infer({"image": given})["logits"], expected, rtol=1e-5)


def test_kernels_are_counted(program: Program) -> None:
    kernels = program.kernels()
    assert kernels
    assert set(kernels) == {"fp32"}


@computing
def test_a_missing_input_is_an_engine_error(program: Program) -> None:
    with pytest.raises(EngineError, match="image"):
        program.infer({})


@computing
def test_a_wrong_shape_is_an_engine_error(program: Program) -> None:
    with pytest.raises(EngineError):
        program.infer({"image": np.zeros((2, 1, 3), np.float32)})
    assert program.infer({"image": images(2)})["logits"].shape == (2, 10)


def test_closing_twice_is_harmless(made: Made) -> None:
    program = load(made)
    program.close()
    program.close()
    if made[1].engine.name != "echo":
        with pytest.raises(EngineError, match="closed"):
            program.infer({"image": images(1)})


def test_two_programs_run_at_once(made: Made) -> None:
    batch = images(8)
    expected = load(made).infer({"image": batch})["logits"]
    wrong: list[str] = []

    def lane(program: Program) -> None:
        for _ in range(50):
            if not np.allclose(program.infer({"image": batch})["logits"], expected, atol=1e-5):
                wrong.append("differs")

    lanes = [threading.Thread(target=lane, args=(load(made),)) for _ in range(2)]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join(30)
    assert not wrong


@computing
def test_files_that_are_not_there(made: Made, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="missing"):
        load((tmp_path, made[1]))


def test_damaged_files_are_an_engine_error(made: Made, tmp_path: Path) -> None:
    for path in made[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    if made[1].engine.name == "echo":
        (tmp_path / "echo.json").write_text('{"delay_ms": "slow"}')
    with pytest.raises(EngineError):
        load((tmp_path, made[1]))


def test_torch_files_need_a_trusted_store(lowered: dict[str, Made]) -> None:
    with pytest.raises(UntrustedArtifact, match="trusted"):
        load(lowered["torch"], trusted=False)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "echo"])
def test_inert_files_need_no_trust(lowered: dict[str, Made], name: str) -> None:
    assert load(lowered[name], trusted=False).infer({"image": images(1)})


def test_unknown_engine() -> None:
    with pytest.raises(EngineError, match=r"unknown engine 'abacus'.*openvino"):
        engines.get("abacus")


def test_a_broken_engine_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import there_is_no_such_module\n")
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    with pytest.raises(EngineError, match=r"gateway/engines/broken.py cannot be imported"):
        engines.get("broken")


def test_fp32_is_not_quietly_bf16(lowered: dict[str, Made]) -> None:
    # OpenVINO's default on a CPU that has bf16.
    assert set(load(lowered["openvino"]).kernels()) == {"fp32"}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_report_nothing_home(engine: str, tmp_path: Path) -> None:
    """No socket is opened and no file written into the home folder by importing an engine and its
    converters, converting a model, quantising and running it. A fresh process, so that imports
    count. ONNX Runtime's uploader is native code; it starts with an identifier of the device and
    a database in the home folder."""
    script = """
import socket, sys
def refuse(*arguments, **options):
    raise SystemExit("a connection was attempted")
socket.socket.connect = refuse
socket.create_connection = refuse
from compressors import lowering, usertask
from compressors.interface import describe
from compressors.technique import Network, Numerics
from pathlib import Path
task = usertask.load(sys.argv[1])
network = task.network()
interface = describe(task, network, task.samples("validation"))
numerics = Numerics("int8", calibration=task.samples("train").batch(slice(0, 8)))
target = lowering.get(sys.argv[3])
target.lower(Network(network, numerics), interface, Path(sys.argv[2])).infer(interface.example)
if sys.argv[3] == "openvino":
    import openvino.tools.ovc as ovc
    assert "telemetry_stub" in type(ovc.telemetry).__module__
"""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    task = str(Path(__file__).parents[1] / "tiny_task.py")
    import os

    environment = {**os.environ, "HOME": str(home)}
    # Continuous-integration variables switch telemetry off by themselves; here it must be us.
    for name in ("CI", "PYTEST_CURRENT_TEST", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS"):
        environment.pop(name, None)
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", script, task, str(out), engine],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_echo_can_be_slow_or_faulty(tmp_path: Path) -> None:
    def echo(**options: object) -> Program:
        (tmp_path / "echo.json").write_text(json.dumps(options))
        return load((tmp_path, card_of("echo", "echo")))

    import time

    program = echo(delay_ms=30)
    begun = time.perf_counter()
    program.infer({"image": images(1)})
    assert time.perf_counter() - begun >= 0.03

    program = echo(fail_after=2)
    program.infer({"image": images(1)})
    for _ in range(2):
        with pytest.raises(EngineError, match="run 2"):
            program.infer({"image": images(1)})

    assert echo(wrong_shape=True).infer({"image": images(3)})["logits"].shape == (4, 10)
    assert np.isnan(echo(nan=True).infer({"image": images(3)})["logits"]).all()
    with pytest.raises(EngineError, match="refuses to load"):
        echo(fail_load=True)
    with pytest.raises(EngineError, match="colour"):
        echo(colour="red")
