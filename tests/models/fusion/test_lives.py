"""In each state of a network's life, fused and unfused answer alike: outputs and gradients to 1e-5."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.fused_networks import CASES, Case
from trilemma import ops
from trilemma.models.fusion import fuse

pytestmark = pytest.mark.skipif(
    any(ops.OPERATORS[name].why_not_native() for name in ("group_norm_act", "attention", "conv3x3")),
    reason="the native libraries were not built",
)

NETWORKS = ("guided", "UNet2DCondition", "ViT", "ViT of transformers", "DiT")


class Lora(nn.Module):
    """A layer with something beside it, put in the layer's place."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.strength = layer, nn.Parameter(torch.tensor(0.3))

    @property
    def weight(self) -> Any:
        return self.layer.weight

    def forward(self, *args: Any, **named: Any) -> Any:
        y = self.layer(*args, **named)
        return (y[0] * (1 + self.strength), *y[1:]) if isinstance(y, tuple) else y * (1 + self.strength)


KINDS = (nn.GroupNorm, nn.Conv2d, nn.LayerNorm, nn.SiLU, nn.MultiheadAttention)


def parts(network: nn.Module, kinds: Any = KINDS) -> list[tuple[nn.Module, str, nn.Module]]:
    """Each owner, name and child of the kinds."""
    return [
        (owner, name, child)
        for owner in list(network.modules())
        for name, child in owner.named_children()
        if isinstance(child, kinds)
    ]


def as_it_is(network: nn.Module) -> nn.Module:
    return network


def with_adapters(network: nn.Module) -> nn.Module:
    """LoRA by peft, on linear layers and convolutions."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(7)
    kinds = (nn.Linear, nn.Conv2d)
    # torch's own attention reads its projection's weights past the layer.
    names = [
        name
        for name, part in network.named_modules()
        if isinstance(part, kinds) and not name.endswith("self_attention.out_proj")
    ]
    config = peft.LoraConfig(r=2, lora_alpha=0.2, target_modules=names, init_lora_weights=False)
    adapted: nn.Module = peft.inject_adapter_in_model(config, network)
    return adapted.eval()


def with_children_replaced(network: nn.Module) -> nn.Module:
    for owner, name, child in parts(network):
        setattr(owner, name, Lora(child))
    return network


def with_weights_assigned(network: nn.Module) -> nn.Module:
    state = {
        name: 0.9 * value if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network


def with_weights_written_past_autograd(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        parameter.data.mul_(0.9)
    return network


def with_hooks(network: nn.Module) -> nn.Module:
    for number, (_, _, child) in enumerate(parts(network)):
        if number % 2 and not isinstance(child, nn.MultiheadAttention):
            child.register_forward_hook(lambda module, args, y: y * 1.1)
        else:
            child.register_forward_pre_hook(lambda module, args: tuple(1.1 * arg for arg in args))
    return network


def saved_and_loaded(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def replica(network: nn.Module) -> nn.Module:
    """As `nn.DataParallel` makes them, but on the one device that there is."""
    modules = list(network.modules())
    replicas = {module: module._replicate_for_data_parallel() for module in modules}
    for module, made in replicas.items():
        for name, child in module._modules.items():
            if child is not None:
                setattr(made, name, replicas[child])
        for name, parameter in module._parameters.items():
            setattr(made, name, None if parameter is None else 0.9 * parameter)
        for name, buffer in module._buffers.items():
            made._buffers[name] = buffer
    return replicas[network]


STATES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as it is": as_it_is,
    "LoRA by peft": with_adapters,
    "children replaced": with_children_replaced,
    "weights assigned": with_weights_assigned,
    "weights written past autograd": with_weights_written_past_autograd,
    "hooks": with_hooks,
    "deepcopy": copy.deepcopy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "saved and loaded": saved_and_loaded,
    "a replica": replica,
    "training": lambda network: network.train(),
    "float64": lambda network: network.double(),
    "frozen": lambda network: network.requires_grad_(False),
}


def pair(case: Case) -> tuple[nn.Module, nn.Module]:
    """One network twice, the second fused and run."""
    plain, fused = case.network(), case.network()
    fuse(fused)
    with torch.no_grad():
        case.run(fused)
    return plain, fused


def cast(case: Case, dtype: torch.dtype) -> Case:
    def moved(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    named = {name: moved(value) for name, value in case.named.items()}
    return Case(case.make, tuple(map(moved, case.given)), named, case.method)


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == wanted.dtype
    assert (found - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.detach().abs().max()))


def gradients(case: Case, network: nn.Module, y: Tensor) -> dict[str, Tensor]:
    parameters = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    if not parameters:
        return {}
    found = torch.autograd.grad(y.square().mean(), list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


# In float64 the guided network does not run at all: its normalisations compute in float32.
LIVES = [(name, state) for name in NETWORKS for state in STATES if (name, state) != ("guided", "float64")]


@pytest.mark.parametrize(("name", "state"), LIVES)
def test_fused_and_unfused_answer_alike(name: str, state: str) -> None:
    case = CASES[name]
    plain, fused = pair(case)
    torch.manual_seed(1)
    plain = STATES[state](plain)
    torch.manual_seed(1)
    fused = STATES[state](fused)
    if state == "float64":
        case = cast(case, torch.float64)
    with torch.no_grad():
        torch.manual_seed(2)
        wanted = case.run(plain)
        torch.manual_seed(2)
        assert_equal(case.run(fused), wanted)
    torch.manual_seed(2)
    y = case.run(fused)
    torch.manual_seed(2)
    told = case.run(plain)
    assert_equal(y, told)
    if y.requires_grad:
        found, wanted_gradients = gradients(case, fused, y), gradients(case, plain, told)
        assert found.keys() == wanted_gradients.keys()
        for key, wanted in wanted_gradients.items():
            assert_equal(found[key], wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_functional_call(name: str) -> None:
    case = CASES[name]
    plain, fused = pair(case)
    other = {key: 0.9 * value.detach() for key, value in plain.named_parameters()}
    with torch.no_grad():
        before = case.run(fused)
        found, wanted = (
            torch.func.functional_call(network, other, case.given, case.named) for network in (fused, plain)
        )
        if not isinstance(wanted, Tensor):
            found, wanted = found[0], wanted[0]
        assert_equal(found, wanted)
        assert torch.equal(case.run(fused), before)


@pytest.mark.parametrize("name", ["guided", "UNet2DCondition"])
def test_forward_mode(name: str) -> None:
    case = CASES[name]
    found = []
    for network in pair(case):
        x, *rest = case.given

        def answer(x: Tensor, network: nn.Module = network, rest: Any = rest) -> Tensor:
            return Case(case.make, (x, *rest), case.named).run(network)

        # The other ways of attending have no such derivative.
        math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with math, torch.autograd.forward_ad.dual_level():
            dual = answer(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
            found.append(torch.autograd.forward_ad.unpack_dual(dual).tangent)
    assert_equal(found[1], found[0])


@pytest.mark.parametrize("name", ["guided", "ViT"])
def test_export(name: str) -> None:
    case = CASES[name]
    plain, fused = pair(case)
    for strict in (False, True):
        with torch.no_grad():
            exported = torch.export.export(fused, case.given, case.named, strict=strict)
            assert_equal(case.run(exported.module()), case.run(plain))
        assert "trilemma" not in str(exported.graph)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["guided", "ViT"])
def test_trace(name: str) -> None:
    case = CASES[name]
    plain, fused = pair(case)
    with torch.no_grad():
        traced = torch.jit.trace(fused, case.given)
        assert_equal(case.run(traced), case.run(plain))
    assert "trilemma" not in str(traced.inlined_graph)


@pytest.mark.parametrize("first", [False, True])
def test_compile(first: bool) -> None:
    case = CASES["guided"]
    plain, fused = case.network(), case.network()
    fuse(fused)
    with torch.no_grad():
        if first:
            case.run(fused)
        compiled = torch.compile(fused, backend="eager", fullgraph=True)
        assert_equal(case.run(compiled), case.run(plain))
        assert_equal(case.run(fused), case.run(plain))
