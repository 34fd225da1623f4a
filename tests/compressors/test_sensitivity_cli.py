"""`gearshift sensitivity`: what each change does to each layer, as files."""

from __future__ import annotations

import csv
import io

import pytest
import torch
from torch import nn

from compressors.commands import sensitivity
from compressors.errors import NotApplicable, RecipeError
from compressors.pictures import layers
from compressors.progress import Silent
from compressors.sensitivity import LayerSensitivity
from compressors.usertask import Guarded
from compressors.verify import weights_digest
from tests.compressors.few import Few


def test_every_change_is_measured_on_every_layer_in_order() -> None:
    task = Guarded(Few())
    names = tuple(sensitivity.CHANGES)
    found, base, count = sensitivity.measured(task, names, 20, 0, Silent())
    assert tuple(found) == names and 0 <= base <= 1
    assert count == min(20, len(task.samples("validation")))
    for each in found.values():
        assert [one.layer for one in each] == ["0", "3", "6", "10"]
        assert any(one.error > 0 for one in each)
    # What is cut off hurts more than what is rounded.
    total = {name: sum(one.error for one in each) for name, each in found.items()}
    assert total["int8"] < min(total["prune"], total["low-rank"])


def test_half_of_the_weights_or_a_quarter_of_the_rank_is_left() -> None:
    layer = nn.Conv2d(8, 16, 3)
    before = weights_digest(layer)
    apply = sensitivity.CHANGES["prune"].prepared(layer, None, [], 0)  # type: ignore[arg-type]
    with apply(layer):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
    apply = sensitivity.CHANGES["low-rank"].prepared(layer, None, [], 0)  # type: ignore[arg-type]
    with apply(layer):
        assert int(torch.linalg.matrix_rank(layer.weight.detach().flatten(1))) == 4
    assert weights_digest(layer) == before


def test_attention_and_recurrent_weights_are_changed_as_well() -> None:
    for layer, count in ((nn.MultiheadAttention(8, 2), 2), (nn.LSTM(8, 8), 2)):
        before = {name: value.clone() for name, value in layer.named_parameters()}
        apply = sensitivity.CHANGES["prune"].prepared(layer, None, [], 0)  # type: ignore[arg-type]
        with apply(layer):
            changed = [n for n, v in layer.named_parameters() if not torch.equal(v, before[n])]
        assert len(changed) == count and all("weight" in name for name in changed)


class Normal(Few):
    """A network of nothing that could be compressed."""

    def network(self) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_network_without_such_layers_is_refused_by_name() -> None:
    with pytest.raises(NotApplicable, match="prune: the network has no layer of Conv1d, Conv2d"):
        sensitivity.measured(Guarded(Normal()), ("prune",), 4, 0, Silent())


def test_an_unknown_change_is_named() -> None:
    assert sensitivity._changes("prune, int8,prune") == ("prune", "int8")
    with pytest.raises(RecipeError, match="--change: expected int8, prune, low-rank, got int9"):
        sensitivity._changes("int8,int9")
    with pytest.raises(RecipeError, match="--change: expected some of"):
        sensitivity._changes(" , ")


def test_the_table_and_the_picture_hold_every_layer() -> None:
    names = [f"encoder.layer.{index}.attention.self.query" for index in range(60)]
    each = [LayerSensitivity(0.01 * index, 0.1, name) for index, name in enumerate(names)]
    found = {"int8": each, "prune": [*each[:30], LayerSensitivity(0.0, 0.0, 'a,"b')]}
    rows = list(csv.DictReader(io.StringIO(sensitivity.as_csv(found))))
    assert len(rows) == 91 and rows[59]["layer"] == names[59] and rows[59]["place"] == "60"
    assert rows[-1]["layer"] == 'a,"b' and float(rows[1]["drop"]) == 0.01
    titles = dict.fromkeys(found, "a change")
    content = layers.draw(found, titles, "a task", "accuracy")
    assert content.startswith(b"\x89PNG")
    height = int.from_bytes(content[20:24], "big")
    assert height > 61 * 20  # pixels a layer: its name can be read


def test_layers_of_all_changes_are_merged_in_the_network_s_order() -> None:
    assert layers.in_order([["b", "d"], ["a", "b", "c", "d", "e"]]) == list("abcde")
    assert layers.in_order([["a", "c"], ["b"]]) in (["b", "a", "c"], ["a", "b", "c"])
