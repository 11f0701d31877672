"""Which configuration each module gets: by name, by a pattern of names, by type, or for all."""

from __future__ import annotations

import re
from typing import Any, Self

from graphflow.nn.module import Module
from graphflow.quantization.qconfig import QConfig, get_default_qat_qconfig, get_default_qconfig


class QConfigMapping:
    """Configurations by name, pattern, type and for all; the first of these that fits counts.

    None leaves layers as they are.
    """

    def __init__(self) -> None:
        self.global_qconfig: QConfig | None = None
        self.object_type_qconfigs: dict[Any, QConfig | None] = {}
        self.module_name_regex_qconfigs: dict[str, QConfig | None] = {}
        self.module_name_qconfigs: dict[str, QConfig | None] = {}

    def set_global(self, global_qconfig: QConfig | None) -> Self:
        """For all that nothing else says anything about."""
        self.global_qconfig = global_qconfig
        return self

    def set_object_type(self, object_type: Any, qconfig: QConfig | None) -> Self:
        """For modules of a type."""
        self.object_type_qconfigs[object_type] = qconfig
        return self

    def set_module_name_regex(self, module_name_regex: str, qconfig: QConfig | None) -> Self:
        """For modules whose whole names fit a pattern."""
        self.module_name_regex_qconfigs[module_name_regex] = qconfig
        return self

    def set_module_name(self, module_name: str, qconfig: QConfig | None) -> Self:
        """For a module and what is below it."""
        self.module_name_qconfigs[module_name] = qconfig
        return self

    def apply_to(self, model: Module) -> None:
        """Give ``model`` and the modules in it their attribute ``qconfig``."""
        model.qconfig = self.global_qconfig
        for name, module in model.named_modules():
            if name:
                self._give(name, module)

    def _give(self, name: str, module: Any) -> None:
        if name in self.module_name_qconfigs:
            module.qconfig = self.module_name_qconfigs[name]
            return
        parents = [name[:k] for k, letter in enumerate(name) if letter == "."]
        if any(parent in self.module_name_qconfigs for parent in parents):
            return  # it has that of the module above it
        for pattern, qconfig in self.module_name_regex_qconfigs.items():
            if re.fullmatch(pattern, name):
                module.qconfig = qconfig
                return
        if type(module) in self.object_type_qconfigs:
            module.qconfig = self.object_type_qconfigs[type(module)]


def get_default_qconfig_mapping(backend: str = "x86", version: int = 0) -> QConfigMapping:
    """:func:`get_default_qconfig` for all."""
    return QConfigMapping().set_global(get_default_qconfig(backend, version))


def get_default_qat_qconfig_mapping(backend: str = "x86", version: int = 1) -> QConfigMapping:
    """:func:`get_default_qat_qconfig` for all."""
    return QConfigMapping().set_global(get_default_qat_qconfig(backend, version))
