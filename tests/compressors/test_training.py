"""The training loop on the tiny task's real data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors import training
from compressors.errors import NotFinite, TaskError
from compressors.task import Samples, Split
from compressors.training import Training, train
from compressors.usertask import Guarded
from compressors.verify import weights_digest
from tests.tiny_task import Tiny, network_of

HOW = Training(epochs=10, batch_size=32, learning_rate=1e-2)


class Few(Tiny):
    """The tiny task with less to train on, and a test split that nobody may look at."""

    def samples(self, split: Split) -> Samples:
        assert split != "test"
        return super().samples(split).batch(slice(0, 300))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return network_of(8)


def quiet(_fraction: float, _text: str) -> None: ...


def test_it_learns_and_tells_how_far_it_is() -> None:
    network, told = fresh(), []
    before = training.validation_score(network, Few(), Few().samples("validation"))
    trained = train(network, Few(), HOW, seed=0, progress=lambda *step: told.append(step))
    assert trained.scores[trained.best] > before + 0.2
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert told[-1][1] == "epoch 10 of 10"
    assert not network.training


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    networks = [fresh(), fresh(), fresh()]
    state = torch.random.get_rng_state()
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        train(network, Few(), HOW, seed=seed, progress=quiet)
    first, second, third = map(weights_digest, networks)
    assert first == second != third
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_best_epoch_by_validation_is_kept_and_not_the_last() -> None:
    # From the eleventh epoch on every target is wrong: what it learns then is worth nothing.
    right = Few().samples("train")
    wrong = Samples(right.inputs, (right.targets + 1) % 10)
    network = fresh()
    trained = train(
        network,
        Few(),
        Training(epochs=16, batch_size=32, learning_rate=1e-2),
        seed=0,
        progress=quiet,
        epoch_samples=lambda epoch: right if epoch < 10 else wrong,
    )
    assert trained.best < 10
    assert trained.scores[-1] < trained.scores[trained.best] - 0.2
    kept = training.validation_score(network, Few(), Few().samples("validation"))
    assert kept == trained.scores[trained.best]


def test_a_loss_of_ones_own_gets_outputs_targets_and_the_samples_rows() -> None:
    samples, seen = Few().samples("train"), []

    def loss(outputs: tuple[Tensor, ...], targets: Tensor, rows: Tensor) -> Tensor:
        assert outputs[0].shape == (len(rows), 10)
        assert np.array_equal(targets.numpy(), samples.targets[rows.numpy()])
        seen.extend(rows.tolist())
        return nn.functional.cross_entropy(outputs[0], targets)

    train(fresh(), Few(), Training(epochs=1, batch_size=64), seed=0, progress=quiet, loss=loss)
    assert len(seen) == len(set(seen)) == 300 // 64 * 64


def test_a_loss_that_is_nan_ends_the_training_with_its_place() -> None:
    with pytest.raises(NotFinite, match="the loss became nan in epoch 1, step 1"):
        train(
            fresh(),
            Few(),
            HOW,
            seed=0,
            progress=quiet,
            loss=lambda outputs, _targets, _rows: outputs[0].mean() * float("nan"),
        )


class Added(nn.Module):
    """Two inputs, neither an image; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(32, 10), nn.Linear(32, 10)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.left(left) + self.right(right)
        return logits, logits.exp()


class Halves(Few):
    """The upper and the lower half of a digit, as two vectors."""

    outputs = ("logits", "odds")

    def samples(self, split: Split) -> Samples:
        whole = super().samples(split)
        flat = whole.inputs["image"].reshape(len(whole), 64)
        return Samples({"upper": flat[:, :32], "lower": flat[:, 32:]}, whole.targets)


def test_several_inputs_and_outputs() -> None:
    network = Added()
    trained = train(
        network, Halves(), Training(epochs=8, learning_rate=3e-2), seed=0, progress=quiet
    )
    assert trained.scores[trained.best] > 0.6
    samples = Halves().samples("validation")
    logits, odds = training.outputs_of(network, samples)
    assert logits.shape == odds.shape == (300, 10)
    torch.testing.assert_close(odds, logits.exp())


@pytest.mark.parametrize("batch_size", [64, 20, 10, 6, 5, 4, 2])
def test_few_samples_and_few_steps(batch_size: int) -> None:
    class Handful(Few):
        def samples(self, split: Split) -> Samples:
            return super().samples(split).batch(slice(0, 20))

    network = fresh()
    before = copy.deepcopy(network.state_dict())
    how = Training(epochs=1, batch_size=batch_size)
    train(network, Handful(), how, seed=0, progress=quiet)
    assert not torch.equal(before["0.weight"], network.state_dict()["0.weight"])


def test_memory_layout_is_left_as_it_came() -> None:
    network = fresh()
    train(network, Few(), Training(epochs=1), seed=0, progress=quiet)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


class Augmented(Few):
    def __init__(self) -> None:
        self.drawn: list[int] = []

    def training_samples(self, epoch: int) -> Samples:
        self.drawn.append(epoch)
        own = self.samples("train")
        return Samples({"image": own.inputs["image"] + np.float32(epoch)}, own.targets)


def test_every_epoch_sees_what_the_task_draws_for_it() -> None:
    task, seen = Augmented(), []
    network = fresh()
    network.register_forward_pre_hook(
        lambda module, given: seen.append(float(given[0].min())) if module.training else None
    )
    train(network, task, Training(epochs=3, batch_size=300), seed=0, progress=quiet)
    assert task.drawn == [0, 1, 2] and seen == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        (lambda own, _: own.targets, r"training_samples\(0\): expected Samples, got ndarray"),
        (
            lambda own, _: Samples({"image": own.inputs["image"][:, 0]}, own.targets),
            r"training_samples\(0\): expected inputs as in .*\(1, 8, 8\), got image float32 \(8, 8",
        ),
        (
            lambda own, epoch: own.batch(slice(0, 300 - epoch)),
            r"training_samples\(1\): expected 300 samples.*got 299",
        ),
        (lambda _own, _epoch: 1 / 0, r"training_samples\(0\): ZeroDivisionError"),
    ],
)
def test_a_task_s_faults_in_drawing_are_told(
    drawn: Callable[[Samples, int], Samples], told: str
) -> None:
    class Faulty(Few):
        def training_samples(self, epoch: int) -> Samples:
            return drawn(self.samples("train"), epoch)

    with pytest.raises(TaskError, match=told):
        train(fresh(), Guarded(Faulty()), Training(epochs=2), seed=0, progress=quiet)
    plain = Guarded(Few())
    assert plain.training_samples(3) is plain.samples("train")


def test_zeros_are_held_and_weights_of_zeros_alone_are_free() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        network[0].weight[0, 1] = 0
        network[1].weight[:] = 0
    hold = training.hold_zeros(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 10
    hold()
    assert (network[0].weight == 0).nonzero().tolist() == [[0, 1]]
    assert (network[1].weight != 0).all() and (network[2].weight != 0).all()
