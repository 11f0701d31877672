"""``autocast``: products in halves, the rest in float32, parameters untouched."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

from graphflow.autocasting import Precision
from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType, bfloat16, float16, float32
from graphflow.mode import mode
from graphflow.promotion import cast
from graphflow.tensor import Tensor

_DEFAULTS = {"cpu": bfloat16, "cuda": float16}
_chosen = dict(_DEFAULTS)
"""The dtype that ``autocast`` takes when none is given, by device type."""
_caching = [True]
_Before: TypeAlias = "tuple[Precision | None, _Before | None]"


class autocast:
    """A context (or decorator) in which products run in ``dtype`` and what needs it in float32.

    ``device_type`` is ``"cpu"`` (bfloat16 unless another dtype is given) or ``"cuda"``
    (float16); tensors elsewhere, float64 and integers are left alone.  Contexts nest, and
    ``enabled=False`` switches the inner one off.  In a compiled function the casts are nodes
    of its graph; parameters stay float32, and so do their gradients.  ``cache_enabled``: eager
    casts of parameters are kept until the outermost context is left.
    """

    def __init__(
        self,
        device_type: str,
        dtype: DType | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not is_autocast_available(device_type):
            raise GraphFlowError(
                f"autocast is for the device types {sorted(_DEFAULTS)}, not {device_type!r}"
            )
        self.device, self.fast_dtype = device_type, dtype or _chosen[device_type]
        self._enabled = bool(enabled)
        if self._enabled and self.fast_dtype not in (bfloat16, float16):
            warnings.warn(
                f"autocast is for bfloat16 and float16, not {self.fast_dtype.name}: switched off",
                stacklevel=2,
            )
            self._enabled = False
        self._cached = _caching[0] if cache_enabled is None else bool(cache_enabled)
        self._previous: _Before | None = None

    def __enter__(self) -> autocast:
        held, earlier = mode.autocast, self._previous
        try:
            self._previous = held, earlier
            mode.autocast = self._chosen(held)
            mode.note()
        except BaseException:  # Ctrl-C: the block is not entered, so nobody leaves it
            mode.autocast, self._previous = held, earlier
            raise
        return self

    def _chosen(self, held: Precision | None) -> Precision | None:
        """What holds inside, where ``held`` holds outside."""
        dtypes = {} if held is None else dict(held.dtypes)
        dtypes.pop(self.device, None)
        if self._enabled:
            dtypes[self.device] = self.fast_dtype
        key = tuple(sorted(dtypes.items(), key=lambda item: item[0]))
        if not key:
            return None
        if held is None:
            return Precision(key, self._cached)
        # Casts to another dtype are other casts.
        return Precision(key, self._cached, held.casts if key == held.dtypes else {})

    def __exit__(self, *exc: object) -> None:
        assert self._previous is not None
        mode.autocast, self._previous = self._previous  # no call before: Ctrl-C might come, too
        mode.note()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate: ``function`` runs in the context."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapper


def is_autocast_available(device_type: str) -> bool:
    """Whether there is an ``autocast`` for the device type."""
    if not isinstance(device_type, str):
        raise ValueError(f"expected the name of a device type, got {type(device_type).__name__}")
    return device_type in _DEFAULTS


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether an ``autocast`` for the device type is on."""
    return mode.autocast is not None and device_type in dict(mode.autocast.dtypes)


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype of products on the device type, in ``autocast``."""
    held = {} if mode.autocast is None else dict(mode.autocast.dtypes)
    return held.get(device_type) or _chosen[device_type]


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """The dtype that an ``autocast`` for the device type takes when it is given none."""
    _chosen[device_type] = dtype


def is_autocast_cache_enabled() -> bool:
    """Whether eager casts of parameters are kept while in ``autocast``."""
    return _caching[0]


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Whether an ``autocast`` that does not say keeps eager casts of parameters."""
    _caching[0] = bool(enabled)


def clear_autocast_cache() -> None:
    """Forget the casts of parameters that were kept."""
    if mode.autocast is not None:
        mode.autocast.casts.clear()


# ---- autograd functions of one's own --------------------------------------------------


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: DType | None = None
) -> Any:
    """Mark ``forward`` of an ``autograd.Function``: ``backward`` sees the autocast it saw.

    With ``cast_inputs`` floating tensors on the device come in that dtype, and the body runs
    with autocast off.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(*args: Any, **kwargs: Any) -> Any:
        args[0]._fwd_used_autocast = mode.autocast if cast_inputs is None else None
        if cast_inputs is None or not is_autocast_enabled(device_type):
            return fwd(*args, **kwargs)

        def converted(value: Any) -> Any:
            floats = isinstance(value, Tensor) and value.dtype.kind == "float"
            if not floats or value.device.type != device_type or value.dtype.itemsize > _WIDEST:
                return value
            return cast(value, cast_inputs)

        with autocast(device_type, enabled=False):
            named = {key: converted(value) for key, value in kwargs.items()}
            return fwd(*map(converted, args), **named)

    return forward


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """Mark ``backward`` of an ``autograd.Function`` whose forward is marked: it runs in the
    same autocast."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(*args: Any, **kwargs: Any) -> Any:
        held = mode.autocast
        try:
            mode.autocast = args[0]._fwd_used_autocast
            mode.note()
            return bwd(*args, **kwargs)
        finally:
            mode.autocast = held
            mode.note()

    return backward


_WIDEST = float32.itemsize


def device_form(device_type: str) -> type[autocast]:
    """``autocast`` for one device type, which is not given then."""

    class of_device(autocast):
        __doc__ = f"``autocast({device_type!r}, …)``."

        def __init__(
            self,
            enabled: bool = True,
            dtype: DType | None = None,
            cache_enabled: bool = True,
        ) -> None:
            super().__init__(device_type, dtype, enabled, cache_enabled)

    of_device.__name__ = of_device.__qualname__ = "autocast"
    return of_device
