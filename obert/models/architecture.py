"""How a model of the BERT family is built: its stack of layers, what counts as prunable, how layers are dropped, what
inputs it takes. Found by structure; what structure does not say is in a file of `obert/models/architectures`.

"Base" is the model below a task's head.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from obert.foundation.errors import UserError
from obert.models import architectures

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
LOOKED_FOR = (
    "What is looked for is an encoder: a table of token embeddings, and below it one list of like layers whose weights "
    "are linear layers, without causal attention"
)


class Architecture:
    """A model and where things are in it.

    Attributes:
        network: with or without a task's head.
        base: of the network.
        stack_name, stack: the list of layers, by the name that it has in the network.

    Raises:
        UserError: the model is not understood.
    """

    def __init__(self, network: PreTrainedModel):
        self.network = network
        self.base: PreTrainedModel = network.base_model
        self.stack_name, self.stack = self._find_stack()

    @property
    def config(self) -> PretrainedConfig:
        """The network's configuration."""
        return self.network.config

    @property
    def layers(self) -> int:
        """How many layers the model runs."""
        return len(self.stack)

    @property
    def embeddings(self) -> nn.Module:
        """The module of the base that turns tokens into vectors; tables of relative positions may be elsewhere."""
        table = self.base.get_input_embeddings()
        return next(child for child in self.base.children() if any(module is table for module in child.modules()))

    def repeats(self, name: str) -> int:
        """How many times the model runs the layer that a weight of this name belongs to."""
        return 1

    def parts(self) -> dict[str, dict[str, nn.Linear | nn.Embedding]]:
        """Every layer with a weight matrix, by the weight's name, in model order, under three names.

        `encoder`: the linear layers of the stack. `embeddings`: every table, of relative positions too, and linear
        layers between the tables and the stack, where embeddings are factorised. `head`: the other linear layers, those
        of the pooler and the task. A linear layer whose weight is a table is that table, and counts once.
        """
        in_stack = {module for module in self.stack.modules() if isinstance(module, nn.Linear)}
        tables = [module for module in self.base.modules() if isinstance(module, nn.Embedding)]
        tied = {id(table.weight) for table in tables}
        early = _before(self.base, self.stack)
        found: dict[str, dict[str, nn.Linear | nn.Embedding]] = {"encoder": {}, "embeddings": {}, "head": {}}
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Embedding) or (isinstance(module, nn.Linear) and module in early):
                part = "embeddings"
            elif isinstance(module, nn.Linear):
                part = "encoder" if module in in_stack else "head"
            else:
                continue
            if part == "embeddings" or id(module.weight) not in tied:
                found[part][f"{name}.weight"] = module
        return found

    def keep(self, layers: Sequence[int]) -> None:
        """Drop all layers but these, in place, and say so in the configuration.

        Raises:
            UserError: a layer that is not there or is named twice, or layers that the model cannot be built of.
        """
        if not layers or len(set(layers)) < len(layers) or any(not 0 <= index < self.layers for index in layers):
            raise UserError(
                f"model.layers {list(layers)}: the encoder has layers 0 to {self.layers - 1}; name at least one, and "
                "none twice"
            )
        self._keep(layers)
        with torch.device("meta"):
            again = type(self.network)(copy.deepcopy(self.config))
        built, own = ({n: v.shape for n, v in m.state_dict().items()} for m in (again, self.network))
        if built != own:
            name = next(name for name in (*own, *built) if own.get(name) != built.get(name))
            raise UserError(
                f"model.layers {list(layers)}: a {self.config.model_type} model cannot be built of these layers, since "
                f"they are not all alike ('{name}'). Keep layer 0 as the first"
            )

    def _keep(self, layers: Sequence[int]) -> None:
        """What `keep` does when it has checked the numbers."""
        kinds = getattr(self.config, "layer_types", None)
        self._replace_stack(nn.ModuleList(self.stack[index] for index in layers))
        for index, layer in enumerate(self.stack):
            for module in layer.modules():
                if getattr(module, "layer_idx", None) is not None:
                    module.layer_idx = index
        self.config.num_hidden_layers = len(layers)
        if kinds is not None:
            self.config.layer_types = [kinds[index] for index in layers]

    def _replace_stack(self, stack: nn.ModuleList) -> None:
        parent, _, name = self.stack_name.rpartition(".")
        setattr(self.network.get_submodule(parent), name, stack)
        self.stack = stack

    def input_names(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """What the model is given: inputs of its own that the tokenizer makes, and that can make a difference.

        Token types are left out where the model has no table of two types or more, and where the tokenizer gives the
        second of two texts the type of the first: then every one of them is the model's default.
        """
        taken = inspect.signature(self.network.forward).parameters
        names = [name for name in INPUTS if name in taken]
        if "token_type_ids" in names:
            types = tokenizer("a", "a", return_token_type_ids=True, verbose=False).get("token_type_ids") or [0]
            if max(types) == 0 or max(types) >= self._token_types():
                names.remove("token_type_ids")
        return names

    def _token_types(self) -> int:
        """Rows of the table of token types."""
        tables = (m for n, m in self.base.named_modules() if isinstance(m, nn.Embedding) and "token_type" in n)
        return next((table.num_embeddings for table in tables), 0)

    def _find_stack(self) -> tuple[str, nn.ModuleList]:
        if getattr(self.config, "is_encoder_decoder", False) or getattr(self.config, "is_decoder", False):
            raise self._not_understood("it has a decoder")
        try:
            table = self.base.get_input_embeddings()
        except NotImplementedError:
            table = None
        if not isinstance(table, nn.Embedding):
            raise self._not_understood("it has no table of token embeddings")
        found = dict(_stacks(self.base))
        if len(found) != 1:
            there = f"lists of layers: {', '.join(found)}" if found else "no list of layers with linear layers in it"
            raise self._not_understood(f"it has {there}")
        ((name, stack),) = found.items()
        prefix = next(name for name, module in self.network.named_modules() if module is self.base)
        return f"{prefix}.{name}".lstrip("."), stack

    def require_understood(self) -> None:
        """Raise UserError if the layers of the stack are not what a pruning method can work on."""
        if self.layers != self.config.num_hidden_layers:
            raise self._not_understood(
                f"'{self.stack_name}' has {self.layers} layers, num_hidden_layers says {self.config.num_hidden_layers}"
            )
        for name, module in self.stack.named_modules(prefix=self.stack_name):
            if getattr(module, "is_causal", False):
                raise self._not_understood(f"'{name}' has causal attention")
            if not isinstance(module, nn.Linear | nn.Embedding):
                for own, parameter in module.named_parameters(recurse=False):
                    if parameter.dim() > 1:
                        kind = type(module).__name__
                        raise self._not_understood(f"'{name}.{own}' is a weight of {kind}, which is no linear layer")

    def _not_understood(self, reason: str) -> UserError:
        kind = self.config.model_type
        return UserError(
            f"{type(self.network).__name__} (model_type {kind}) is not understood: {reason}. {LOOKED_FOR}. Take "
            f"another model, or say where they are in obert/models/architectures/{kind.replace('-', '_')}.py"
        )


def architecture_of(network: PreTrainedModel) -> Architecture:
    """The architecture of a model, with or without a task's head.

    Raises:
        UserError: it is not understood.
    """
    kind = network.config.model_type.replace("-", "_")
    if kind not in architectures.names():
        return Architecture(network)
    module = importlib.import_module(f"{architectures.__name__}.{kind}")
    (found,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Architecture) and value.__module__ == module.__name__
    )
    return found(network)


def _stacks(base: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Lists of modules of one class, each with linear layers in it, that are in no other such list."""
    inside: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not name.startswith(inside):
            linear = all(any(isinstance(part, nn.Linear) for part in member.modules()) for member in module)
            if linear and len({type(member) for member in module}) == 1:
                inside = (*inside, f"{name}.")
                yield name, module


def _before(base: nn.Module, stack: nn.ModuleList) -> set[nn.Module]:
    """The modules that the base registers before its stack: what leads to it."""
    found = set()
    for module in base.modules():
        if module is stack:
            break
        found.add(module)
    return found
