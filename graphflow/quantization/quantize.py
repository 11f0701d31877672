"""From a model of numbers to one of integers: observe, then convert; or convert at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.ir.types import DType, int8, uint8
from graphflow.nn import modules
from graphflow.nn.module import Module
from graphflow.quantization import (
    attention,
    embeddings,
    functional_modules,
    layers,
    pooling,
    recurrent,
    training,
    transposed,
)
from graphflow.quantization.qconfig import (
    QConfig,
    default_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
)

STATIC: Mapping[type[Module], Any] = {
    modules.Linear: layers.Linear,
    modules.Conv1d: layers.Conv1d,
    modules.Conv2d: layers.Conv2d,
    modules.Conv3d: layers.Conv3d,
    modules.ConvTranspose1d: transposed.ConvTranspose1d,
    modules.ConvTranspose2d: transposed.ConvTranspose2d,
    modules.ConvTranspose3d: transposed.ConvTranspose3d,
    functional_modules.FloatFunctional: functional_modules.QFunctional,
    **{
        getattr(modules, f"{name}{dims}d"): getattr(pooling, f"{name}{dims}d")
        for name in ("AvgPool", "AdaptiveAvgPool")
        for dims in (1, 2, 3)
    },
}
"""Layers that calibration makes integers of."""
DYNAMIC: Mapping[type[Module], Any] = {
    modules.Linear: layers.DynamicLinear,
    modules.LSTM: recurrent.LSTM,
    modules.GRU: recurrent.GRU,
    modules.LSTMCell: recurrent.LSTMCell,
    modules.GRUCell: recurrent.GRUCell,
    modules.RNNCell: recurrent.RNNCell,
}
"""Layers that become integers without calibration."""
TABLES: Mapping[type[Module], Any] = {
    modules.Embedding: embeddings.Embedding,
    modules.EmbeddingBag: embeddings.EmbeddingBag,
}
"""Tables, of which rows are read: converted if their configuration is one for tables."""
TRAINED: Mapping[type[Module], Any] = {
    modules.Linear: training.Linear,
    modules.Conv1d: training.Conv1d,
    modules.Conv2d: training.Conv2d,
    modules.Conv3d: training.Conv3d,
}
"""Layers that are trained with rounding."""


def _places(model: Module) -> Iterator[tuple[Module, str, Module, QConfig | None]]:
    """Every module below ``model``: parent, name there, itself, and the configuration that it
    or the nearest module above it has."""
    stack = [(model, getattr(model, "qconfig", None))]
    while stack:
        parent, inherited = stack.pop()
        for name, child in list(parent._modules.items()):
            if child is not None:
                own = getattr(child, "qconfig", inherited)
                yield parent, name, child, own
                stack.append((child, own))


def _observe_input(module: Module, inputs: tuple[Any, ...]) -> None:
    observer: Any = module._modules["input_observer"]
    observer(inputs[0])


def _wrapped(model: Module, inplace: bool) -> tuple[Module, Module]:
    """The model (or a copy), and a holder of it, so that it can be replaced itself."""
    model = model if inplace else copy.deepcopy(model)
    holder = Module()
    holder._modules["model"] = model
    return model, holder


def prepare(model: Module, inplace: bool = False, **kwargs: Any) -> Module:
    """Have observers watch what comes into layers that multiply, averages and sums.

    Layers are configured by attribute ``qconfig``, their own or that of a module above them;
    None leaves them as they are.  Run samples through the result, then :func:`convert` it.
    """
    _, holder = _wrapped(model, inplace)
    for parent, name, module, qconfig in list(_places(holder)):
        if qconfig is not None and type(module) is modules.MultiheadAttention:
            made = attention.MultiheadAttention.from_float(module)
            if hasattr(module, "qconfig"):
                made.qconfig = module.qconfig
            parent._modules[name] = made
    for _, _, module, qconfig in _places(holder):
        if qconfig is None or type(module) not in STATIC:
            continue
        if isinstance(module, functional_modules.FloatFunctional):
            functional_modules.observe(module, qconfig.activation)
            continue
        module.add_module("input_observer", qconfig.activation())
        module.register_forward_pre_hook(_observe_input)
        module.register_forward_hook(functional_modules.after_a_layer)
        module.qconfig = qconfig
    return _model(holder)


def prepare_qat(model: Module, mapping: Any = None, inplace: bool = False) -> Module:
    """Have linear layers and convolutions trained with the rounding that integers will bring.

    They share their parameters with the layers before, so an optimiser made before goes on.
    """
    if not model.training:
        raise AssertionError("prepare_qat only works on models in training mode")
    _, holder = _wrapped(model, inplace)
    for parent, name, module, qconfig in _places(holder):
        made = (mapping or TRAINED).get(type(module))
        if qconfig is not None and type(module) is functional_modules.FloatFunctional:
            functional_modules.observe(module, qconfig.activation)
        elif qconfig is not None and made is not None:
            parent._modules[name] = made.from_float(module, qconfig)
    return _model(holder)


def convert(module: Module, mapping: Any = None, inplace: bool = False, **kwargs: Any) -> Module:
    """Layers of integers in place of those that were prepared."""
    _, holder = _wrapped(module, inplace)
    for parent, name, child, qconfig in _places(holder):
        if qconfig is not None and type(child) in TABLES and _for_tables(qconfig):
            made = (mapping or TABLES)[type(child)].from_float(child, qconfig.weight)
            parent._modules[name] = made.train(child.training)
            continue
        found = _observed(child)
        if found is None:
            continue
        kind, observers = found
        with no_grad():
            parent._modules[name] = (mapping or STATIC)[kind].from_float(child, *observers)
            parent._modules[name].train(child.training)
    return _model(holder)


def _observed(child: Module) -> tuple[type[Module], tuple[Any, ...]] | None:
    """The kind of a prepared layer, and what it was given to choose ranges; None for others."""
    own = child._modules
    if isinstance(child, training.FakeQuantized):
        kind = next(k for k in STATIC if isinstance(child, k))
        return kind, (child.input_fake_quant, child.weight_fake_quant)
    if "x_observer" in own:
        return type(child), (own["x_observer"], own["y_observer"])
    if "input_observer" not in own:
        return None
    weight = (child.qconfig.weight(),) if hasattr(child, "weight") else ()
    return type(child), (own["input_observer"], *weight)


def _for_tables(qconfig: QConfig) -> bool:
    return bool(qconfig.weight().qscheme.float_zero)


def quantize(
    model: Module, run_fn: Callable[..., Any], run_args: Any, mapping: Any = None,
    inplace: bool = False,
) -> Module:  # fmt: skip
    """Prepare ``model``, calibrate it by ``run_fn(model, *run_args)``, and convert it."""
    prepared = prepare(model, inplace).eval()
    with no_grad():
        run_fn(prepared, *run_args)
    return convert(prepared, mapping, inplace=True)


def quantize_qat(
    model: Module, run_fn: Callable[..., Any], run_args: Any, inplace: bool = False
) -> Module:
    """Train ``model`` with rounding by ``run_fn(model, *run_args)``, and convert it."""
    prepared = prepare_qat(model.train(), inplace=inplace)
    run_fn(prepared, *run_args)
    return convert(prepared.eval(), inplace=True)


def quantize_dynamic(
    model: Module, qconfig_spec: Any = None, dtype: DType = int8, mapping: Any = None,
    inplace: bool = False,
) -> Module:  # fmt: skip
    """Layers with int8 weights, which quantise what comes in by its own range at every call.

    ``qconfig_spec`` says which: a set of types or names, or a dictionary from them to their
    :class:`QConfig`; at first all linear layers, recurrent layers and cells, or with ``quint8``
    the tables of embeddings.
    """
    if dtype not in (int8, uint8):
        raise ValueError(f"quantize_dynamic: dtype must be int8 or uint8 (quint8), not {dtype}")
    kinds, qconfig = (
        (DYNAMIC, default_dynamic_qconfig) if dtype is int8
        else (TABLES, float_qparams_weight_only_qconfig)
    )  # fmt: skip
    chosen = set(kinds) if qconfig_spec is None else qconfig_spec
    if not isinstance(chosen, dict):
        chosen = dict.fromkeys(chosen, qconfig)
    _, holder = _wrapped(model, inplace)
    known = mapping or {**DYNAMIC, **TABLES}
    names = {id(module): name for name, module in _model(holder).named_modules()}
    for parent, name, module, _ in _places(holder):
        key = names.get(id(module))
        own = _chosen(chosen, key, type(module))
        if own is not None and type(module) in known:
            made = known[type(module)].from_float(module, own.weight)
            parent._modules[name] = made.train(module.training)
    return _model(holder)


def _chosen(spec: Mapping[Any, Any], name: str | None, kind: type[Module]) -> Any:
    """The configuration for a module: by its name, its type, or that of what it lies in."""
    while name is not None:
        if name and name in spec:
            return spec[name]
        if "." not in name:
            break
        name = name.rpartition(".")[0]
    return spec.get(kind)


def _model(holder: Module) -> Module:
    found: Module = holder.get_submodule("model")
    return found


def get_default_static_quant_module_mappings() -> dict[type[Module], Any]:
    """What :func:`convert` makes of layers that were calibrated, and of tables."""
    return {**STATIC, **TABLES}


def get_default_dynamic_quant_module_mappings() -> dict[type[Module], Any]:
    """What :func:`quantize_dynamic` makes of layers."""
    return {**DYNAMIC, **TABLES}


def get_default_qat_module_mappings() -> dict[type[Module], Any]:
    """What :func:`prepare_qat` makes of layers."""
    return dict(TRAINED)
