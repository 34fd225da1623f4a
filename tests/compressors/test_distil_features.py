"""Features: the losses, which layers are paired, and that they teach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from compressors import technique
from compressors.errors import NotApplicable
from compressors.recipe import RecipeError, parse
from compressors.surgery.features import captured, matching, traced
from compressors.task import Samples, Split
from compressors.tasks.digits import Residual
from compressors.technique import Network
from compressors.techniques.distil_features import attention, attention_loss, hint_loss, mapping
from compressors.verify import weights_digest
from tests.compressors.few import EXAMPLE, Few, context_of
from tests.compressors.taught import Joined, Reader, Tokens, Vectors


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_equal_features_cost_nothing() -> None:
    for x in (features(3, 4, 5, 6), features(3, 7, 4), features(3, 4)):
        assert hint_loss(x, x) == 0
    for x in (features(3, 4, 5, 6), features(3, 7, 4)):
        assert attention_loss(x, x) == 0


def test_a_hint_costs_its_share_of_the_teachers_energy() -> None:
    x = features(3, 4, 5, 6)
    torch.testing.assert_close(hint_loss(torch.zeros_like(x), x), torch.tensor(1.0))
    torch.testing.assert_close(hint_loss(10 * x / 2, 10 * x), torch.tensor(0.25))


def test_attention_follows_the_formula_whatever_the_scale_and_the_channels() -> None:
    x = features(2, 3, 2, 2)
    by_hand = torch.stack(
        [sum(x[i, c].square() for c in range(3)).flatten() for i in range(2)]  # type: ignore[misc]
    )
    by_hand = by_hand / by_hand.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(attention(x), by_hand)
    torch.testing.assert_close(attention(7 * x), by_hand)
    torch.testing.assert_close(attention(torch.cat([x, x], 1)), by_hand)
    torch.testing.assert_close(attention(x.flatten(2).transpose(1, 2)), by_hand)
    other = features(2, 5, 2, 2)
    formula = (by_hand - attention(other)).square().sum() / 2
    torch.testing.assert_close(attention_loss(x, other), formula)


def test_stages_are_paired_by_their_size_and_vectors_by_the_head() -> None:
    def names(one: nn.Module, other: nn.Module, samples: Samples) -> list[tuple[str, str]]:
        pairs = matching(traced(one, samples), traced(other, samples))
        return [(a.name, b.name) for a, b in pairs]

    found = names(Residual(8, (1, 1, 1)), Residual(16, (2, 2, 1)), EXAMPLE)
    assert found == [("blocks.0", "blocks.1"), ("blocks.1", "blocks.3"), ("blocks", "blocks")]
    some = Vectors().samples("train").batch(slice(0, 3))
    assert names(Joined(6), Joined(16), some) == [("out", "out")]
    some = Tokens().samples("train").batch(slice(0, 3))
    assert names(Reader(8), Reader(12), some) == [("read", "read")]


def test_what_enters_the_head_is_read_and_nothing_is_left_behind() -> None:
    network, some = Joined(6), Vectors().samples("train").batch(slice(0, 3))
    head = traced(network, some).head
    assert head is not None and head.features.shape == (3, 6)
    inputs = [torch.from_numpy(array) for array in some.inputs.values()]
    with captured(network, [head]) as seen:
        output = network.eval()(*inputs)[0]
    torch.testing.assert_close(network.out(seen[0]), output)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_map_takes_the_students_features_to_the_teachers_shape() -> None:
    for one, other in (
        (features(3, 4, 5, 6), features(3, 9, 5, 6)),
        (features(3, 7, 4), features(3, 7, 9)),
        (features(3, 4), features(3, 9)),
    ):
        assert mapping(one, other)(one).shape == other.shape


def taught(**settings: object) -> nn.Module:
    """A student whose layer 7 learns from the reference's."""
    task, found = Few(), technique.get("distil-features")
    layers = {"student_layers": ["7"], "teacher_layers": ["7"]}
    config = found.Config.model_validate({"batch_size": 25, **layers, **settings})
    context = context_of(task)
    before = weights_digest(context.reference)
    student = found.apply(Network(task.network()), context, config).module
    assert weights_digest(context.reference) == before
    return student


def features_of(network: nn.Module, split: Split) -> Tensor:
    images = torch.from_numpy(Few().samples(split).inputs["image"])
    with torch.no_grad():
        return network.eval()[:8](images)  # type: ignore[index, no-any-return]


def test_attention_is_learnt() -> None:
    """Their loss, after training with them, is smaller than after training without."""
    how = {"epochs": 3, "learning_rate": 0.02, "feature_loss": "attention"}

    def distance(weight: float) -> float:
        own = features_of(taught(feature_weight=weight, **how), "validation")
        return float(attention_loss(own, features_of(Few().network(), "validation")))

    assert distance(100.0) < 0.9 * distance(1e-6)


def test_hints_are_learnt() -> None:
    """The nearest linear map from the student's features, which takes them to the teacher's on
    training samples, misses those on others by less than after training without hints."""

    def columns(network: nn.Module, split: Split) -> Tensor:
        return features_of(network, split).movedim(1, -1).flatten(0, 2).double()

    def distance(weight: float) -> float:
        student, teacher = taught(feature_weight=weight, epochs=20), Few().network()
        own = {s: F.pad(columns(student, s), (0, 1), value=1.0) for s in ("train", "validation")}  # type: ignore[arg-type]
        best = torch.linalg.lstsq(own["train"], columns(teacher, "train")).solution
        return float(hint_loss(own["validation"] @ best, columns(teacher, "validation")))

    assert distance(10.0) < 0.9 * distance(1e-6)


def test_the_map_of_a_hint_trains_along() -> None:
    seen: list[Tensor] = []

    def watch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        every = [p for group in optimizer.param_groups for p in group["params"]]
        seen.extend(p.detach().clone() for p in every if p.shape == (32, 16, 1, 1))

    handle = register_optimizer_step_pre_hook(watch)
    taught(epochs=1)
    handle.remove()
    assert len(seen) == 8 and not torch.equal(seen[0], seen[-1])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"student_layers": ["nope"], "teacher_layers": ["7"]}, "student_layers: .*got 'nope'"),
        ({"student_layers": ["7"], "teacher_layers": ["nope"]}, "teacher_layers: .*got 'nope'"),
        ({"student_layers": ["2"], "teacher_layers": ["7"]}, r"2 and 7: .*same size"),
        (
            {"student_layers": ["9"], "teacher_layers": ["9"], "feature_loss": "attention"},
            "9: attention is over places",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(settings: dict[str, object], told: str) -> None:
    found = technique.get("distil-features")
    config = found.Config.model_validate({"epochs": 1, **settings})
    with pytest.raises(NotApplicable, match=f"distil-features: {told}"):
        found.apply(Network(Few().network()), context_of(Few()), config)


def test_names_come_in_pairs() -> None:
    with pytest.raises(RecipeError, match="as many teacher_layers as student_layers, 1, got 0"):
        parse(
            "[variants.fp32]\n[variants.x]\n"
            'steps = [{ technique = "distil-features", student_layers = ["7"] }]',
            "recipes.toml",
        )
