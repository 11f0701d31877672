"""Layers that learn the number of their input's channels from their first input.

Until then their parameters have no shape; after it they are ordinary layers, by class too.
"""

from __future__ import annotations

from typing import Any, ClassVar

from graphflow.errors import GraphFlowError
from graphflow.functions.creation import tensor
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.nn.module import Module
from graphflow.nn.modules.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from graphflow.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from graphflow.nn.modules.linear import Linear
from graphflow.nn.uninitialized import UninitializedBuffer, UninitializedParameter, is_lazy
from graphflow.tensor import Tensor

__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d",
    "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
    "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear",
]  # fmt: skip


class LazyModuleMixin(Module):
    """Before the layer that it is to become, among the bases of a lazy one.

    The first call, eager or traced, calls ``initialize_parameters`` with its arguments; so does
    loading a state that knows the shapes.
    """

    cls_to_become: ClassVar[type[Module] | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        first = self.register_forward_pre_hook(LazyModuleMixin._infer_parameters, with_kwargs=True)
        self.__dict__["_first_call"] = first

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer has no shape yet."""
        return any(map(is_lazy, (*self._parameters.values(), *self._buffers.values())))

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters their shapes, for a call with these arguments."""
        raise NotImplementedError(f"{type(self).__name__} does not define initialize_parameters()")

    def _infer_parameters(self, args: Any, kwargs: Any) -> None:
        from graphflow.trace import outside_trace

        with outside_trace():
            self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise GraphFlowError(
                f"{type(self).__name__}.initialize_parameters() left parameters without a shape"
            )
        self._become()

    def _become(self) -> None:
        self.__dict__.pop("_first_call").remove()
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Parameters without a shape are put in as they are."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, value in self._own_state().items():
            if is_lazy(value):
                destination[prefix + name] = value

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Parameters without a shape take that of the values that they are given."""
        for name, held in self._own_state().items():
            given = state_dict.get(prefix + name)
            if is_lazy(given):
                del state_dict[prefix + name]
                state_dict[prefix + name] = held.detach()
            elif is_lazy(held) and isinstance(given, Tensor):
                held.materialize(tuple(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class LazyLinear(LazyModuleMixin, Linear):
    """A :class:`Linear` whose ``in_features`` are its first input's."""

    cls_to_become = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__(0, 0, False)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, once they have a shape."""
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """[…, in] says what ``in_features`` is."""
        if self.has_uninitialized_params():
            self.in_features = input.shape[-1]
            _materialize(self.weight, (self.out_features, self.in_features))
            _materialize(self.bias, (self.out_features,))
            self.reset_parameters()
        else:
            self.in_features = self.weight.shape[1]


def _materialize(value: Any, shape: tuple[int, ...]) -> None:
    if is_lazy(value):
        value.materialize(shape)


# ---- convolutions ----------------------------------------------------------------------


class _LazyConv(LazyModuleMixin):
    """What is left out of the layer's arguments is ``in_channels``."""

    def __init__(self, out_channels: int, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        options = dict(zip(self._order(), args)) | kwargs
        bias, groups = options.pop("bias", True), options.get("groups", 1)
        device, dtype = options.get("device"), options.get("dtype")
        if out_channels % groups:
            raise ValueError(f"out_channels {out_channels} must be a multiple of groups {groups}")
        super().__init__(0, 0, kernel_size, bias=False, **options)
        own: Any = self
        own.out_channels = out_channels
        own.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            own.bias = UninitializedParameter(device=device, dtype=dtype)

    def _order(self) -> list[str]:
        """The names of what follows ``kernel_size``, by place."""
        import inspect

        assert self.cls_to_become is not None
        return [*inspect.signature(self.cls_to_become).parameters][3:]

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, once they have a shape."""
        own: Any = self
        if not self.has_uninitialized_params() and own.in_channels:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """[N, C, …] or [C, …] says what ``in_channels`` is."""
        own: Any = self
        if not self.has_uninitialized_params():
            own.in_channels = own.weight.shape[0 if own.transposed else 1]
            own.in_channels *= 1 if own.transposed else own.groups
            return
        own.in_channels = _channels(self, input, (own.dims + 1, own.dims + 2))
        if own.in_channels % own.groups:
            raise ValueError(
                f"{type(self).__name__}: {own.in_channels} channels must be a multiple of groups "
                f"{own.groups}"
            )
        ends = (own.in_channels, own.out_channels // own.groups)
        if not own.transposed:
            ends = (own.out_channels, own.in_channels // own.groups)
        _materialize(own.weight, (*ends, *own.kernel_size))
        _materialize(own.bias, (own.out_channels,))
        self.reset_parameters()


def _channels(module: Module, input: Tensor, ranks: tuple[int, int]) -> int:
    """The number of channels of an input without a batch, or with one."""
    if input.ndim not in ranks:
        raise GraphFlowError(
            f"{type(module).__name__} expects an input of {ranks[0]} or {ranks[1]} dimensions, "
            f"not of shape {list(input.shape)}"
        )
    return int(input.shape[0 if input.ndim == ranks[0] else 1])


class LazyConv1d(_LazyConv, Conv1d):
    """A :class:`Conv1d` whose ``in_channels`` are its first input's."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyConv, Conv2d):
    """A :class:`Conv2d` whose ``in_channels`` are its first input's."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyConv, Conv3d):
    """A :class:`Conv3d` whose ``in_channels`` are its first input's."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyConv, ConvTranspose1d):
    """A :class:`ConvTranspose1d` whose ``in_channels`` are its first input's."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConv, ConvTranspose2d):
    """A :class:`ConvTranspose2d` whose ``in_channels`` are its first input's."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConv, ConvTranspose3d):
    """A :class:`ConvTranspose3d` whose ``in_channels`` are its first input's."""

    cls_to_become = ConvTranspose3d


# ---- normalisation ----------------------------------------------------------------------


class _LazyNorm(LazyModuleMixin):
    """What is left out of the layer's arguments is ``num_features``."""

    takes_single_samples: ClassVar[bool] = False

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: DType | None = None,
        *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype)
        own: Any = self
        own.affine, own.track_running_stats = affine, track_running_stats
        made = {"device": device, "dtype": dtype}
        if affine:
            own.weight = UninitializedParameter(**made)
            own.bias = UninitializedParameter(**made) if bias else None
        if track_running_stats:
            own.running_mean = UninitializedBuffer(**made)
            own.running_var = UninitializedBuffer(**made)
            own.num_batches_tracked = tensor(0, dtype=T.int64)

    def reset_parameters(self) -> None:
        """Statistics, scale and shift at their first values, once they have a shape."""
        own: Any = self
        if not self.has_uninitialized_params() and own.num_features:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """The number of channels says what ``num_features`` is."""
        own: Any = self
        held = [own.weight, own.bias, own.running_mean, own.running_var]
        if not self.has_uninitialized_params():
            known = [value for value in held if value is not None]
            own.num_features = known[0].shape[0] if known else 0
            return
        own._check_input_dim(input)
        single = self.takes_single_samples and input.ndim == own.ranks[0]
        own.num_features = int(input.shape[0 if single else 1])
        for value in held:
            _materialize(value, (own.num_features,))
        self.reset_parameters()


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A :class:`BatchNorm1d` whose ``num_features`` are its first input's channels."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A :class:`BatchNorm2d` whose ``num_features`` are its first input's channels."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """A :class:`BatchNorm3d` whose ``num_features`` are its first input's channels."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """An :class:`InstanceNorm1d` whose ``num_features`` are its first input's channels."""

    cls_to_become, takes_single_samples = InstanceNorm1d, True


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """An :class:`InstanceNorm2d` whose ``num_features`` are its first input's channels."""

    cls_to_become, takes_single_samples = InstanceNorm2d, True


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """An :class:`InstanceNorm3d` whose ``num_features`` are its first input's channels."""

    cls_to_become, takes_single_samples = InstanceNorm3d, True
