"""Numba's passes from byte code to LLVM for kernels, and nothing that kernels do not need.

Stock Numba renames variables so that each is assigned once, which functions need whose
variables change their type, and keeps books of lifetimes for reference counts: a third of
the time of its front end.  Kernels count no references, and their variables keep their types;
:class:`KeepTypes` finds those that do not, and the kernel is translated again with the
renaming.  A variable that is assigned once is a value here, any other a place on the stack,
which LLVM makes values of.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from llvmlite import ir as llvm_ir
from numba.core import ir
from numba.core.analysis import compute_cfg_from_blocks, compute_use_defs
from numba.core.compiler_machinery import FunctionPass, LoweringPass, register_pass
from numba.core.cpu_options import FastMathOptions
from numba.core.errors import TypingError
from numba.core.fastmathpass import rewrite_module
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.interpreter import Interpreter
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseTypeInference

from graphflow.codegen.bridge import types
from graphflow.codegen.pointers import attach_scopes


class ModuleLibrary:
    """What lowering needs of a Numba code library: somewhere to note what must be linked."""

    def __init__(self, name: str, triple: str, data_layout: str) -> None:
        self.name, self._triple, self._data_layout = name, triple, data_layout
        self.linked: list[Any] = []

    def create_ir_module(self, name: str) -> Any:
        """An empty module for the target."""
        module = llvm_ir.Module(name)
        module.triple, module.data_layout = self._triple, self._data_layout
        return module

    def add_linking_library(self, library: Any) -> None:
        """Note another compiled function's library."""
        self.linked.append(library)


class _Interpreter(Interpreter):  # type: ignore[misc]
    """Byte code to Numba's IR, without looking for what ``with``, lists and ``**`` leave behind."""

    def post_process(self, peepholes: Any, func_ir: Any) -> Any:
        """Kernels have none of them; looking took a twentieth of the time of the front end."""
        return func_ir


@register_pass(mutates_CFG=True, analysis_only=False)
class TranslateKernel(FunctionPass):  # type: ignore[misc]
    """Numba's IR of the byte code."""

    _name = "graphflow_translate_kernel"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Translate."""
        state["func_ir"] = _Interpreter(state["func_id"]).interpret(state["bc"])
        return True


class TypesChange(Exception):
    """A variable holds values of several types, one after the other."""


@register_pass(mutates_CFG=False, analysis_only=False)
class KeepTypes(BaseTypeInference):  # type: ignore[misc]
    """Type inference; :class:`TypesChange` unless all assigned to a variable has one type."""

    _name = "graphflow_keep_types"

    def run_pass(self, state: Any) -> bool:
        """Infer and compare."""
        _copy_globals(state.func_ir.blocks)
        try:
            super().run_pass(state)
        except TypingError as error:  # perhaps for want of a type that all could have
            raise TypesChange from error
        for block in state.func_ir.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                kept = types.unliteral(state.typemap[assignment.target.name])
                kind = _assigned_type(assignment.value, state)
                if kind is not None and types.unliteral(kind) != kept:
                    raise TypesChange
        return True


def _copy_globals(blocks: Any) -> None:
    """Let a variable that begins as a global's value not be of that literal's type."""
    for block in blocks.values():
        body: list[Any] = []
        for statement in block.body:
            fixed = isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Global)
            if fixed and not statement.target.is_temp:
                name = f"$global.{statement.target.name}.{len(body)}"
                held = ir.Var(block.scope, name, statement.loc)
                body.append(ir.Assign(statement.value, held, statement.loc))
                statement = ir.Assign(held, statement.target, statement.loc)
            body.append(statement)
        block.body = body


def _assigned_type(value: Any, state: Any) -> Any:
    """The type of an assigned value; None for literals and what the interpreter made itself."""
    if isinstance(value, ir.Var):
        return state.typemap[value.name]
    if isinstance(value, ir.Expr):
        if value.op == "cast":
            return state.typemap[value.value.name]
        found = state.calltypes.get(value)
        return found.return_type if found is not None else None
    return None


def _values(blocks: Any) -> set[str]:
    """Variables that need no place in memory: assigned once, and before every use."""
    counts: Counter[str] = Counter()
    homes: dict[str, int] = {}
    for offset, block in blocks.items():
        for assignment in block.find_insts(ir.Assign):
            counts[assignment.target.name] += 1
            homes[assignment.target.name] = offset
    found = {name for name, count in counts.items() if count == 1}
    dominators = compute_cfg_from_blocks(blocks).dominators()
    for offset, used in compute_use_defs(blocks).usemap.items():
        for name in used & found:
            home = homes[name]
            # Blocks are lowered in the order of their offsets.
            if home >= offset or home not in dominators[offset]:
                found.discard(name)
    return found


class KernelLower(Lower):  # type: ignore[misc]
    """Lowers without Numba's environment object: kernels raise nothing and box nothing."""

    def _find_singly_assigned_variable(self) -> None:
        self._singly_assigned_vars = _values(self.func_ir.blocks)
        self._blk_local_varmap: dict[str, Any] = {}

    def alloca_lltype(self, name: str, lltype: Any, datamodel: Any = None) -> Any:
        """Space for a variable; Numba's version asks LLVM its size for the debugger."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(lltype, name=name)

    def pre_block(self, block: Any) -> None:
        """Nothing: there are no exceptions to look for, and variables to delete."""

    def lower_block(self, block: Any) -> None:
        """Lower the statements of a block; Numba's version prepares for errors at each."""
        for statement in block.body:
            self.loc = statement.loc
            self.lower_inst(statement)

    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        """An operator; no operand is static, so typing has said all there is to know."""
        signature = self.fndesc.calltypes[expr]
        form = self.context.typing_context.resolve_value_type(op)
        operands = [
            self.context.cast(self.builder, self.loadvar(name), self.typeof(name), kind)
            for name, kind in zip((expr.lhs.name, expr.rhs.name), signature.args, strict=True)
        ]
        result = self.context.get_operator(form, signature)(self.builder, operands)
        return self.context.cast(self.builder, result, signature.return_type, resty)

    def lower_call(self, resty: Any, expr: Any) -> Any:
        """A call of the vocabulary."""
        signature = self.fndesc.calltypes[expr]
        if isinstance(signature.return_type, types.Phantom):
            return self.context.get_dummy_value()
        form = self.typeof(expr.func.name)
        values = self.fold_call_args(form, signature, expr.args, expr.vararg, expr.kws)
        result = self.context.get_function(form, signature)(self.builder, values, self.loc)
        return self.context.cast(self.builder, result, signature.return_type, resty)

    def lower_inst(self, inst: Any) -> None:
        """Lower a statement; most are assignments."""
        if isinstance(inst, ir.Assign):
            name = inst.target.name
            self.storevar(self.lower_assign(self.typeof(name), inst), name)
        else:
            super().lower_inst(inst)

    def loadvar(self, name: str) -> Any:
        """The value of a variable."""
        value = self._blk_local_varmap.get(name)
        return self.builder.load(self.getvar(name)) if value is None else value

    def storevar(self, value: Any, name: str, argidx: Any = None) -> None:
        """Assign ``value``; there is no reference to the old one to drop."""
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def lower(self) -> None:
        """Lower the function; its module is the result."""
        self.genlower = None
        self.lower_normal_function(self.fndesc)
        attach_scopes(self.module)
        rewrite_module(self.module, FastMathOptions({"contract"}))


@register_pass(mutates_CFG=True, analysis_only=False)
class LowerKernel(LoweringPass):  # type: ignore[misc]
    """Leave the lowered module, instead of machine code, as the result."""

    _name = "graphflow_lower_kernel"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Lower; the module, the function's name in it and libraries are the result."""
        context = state.targetctx
        description = PythonFunctionDescriptor.from_specialized_function(
            state.func_ir, state.typemap, state.return_type, state.calltypes,
            mangler=context.mangler, inline=False, noalias=False, abi_tags=[],
        )  # fmt: skip
        library = ModuleLibrary(state.func_id.func_qualname, *context.layout())
        with context.push_code_library(library):
            lower = KernelLower(context, library, description, state.func_ir)
            lower.lower()
        state.cr = (lower.module, description.llvm_func_name, library.linked)
        return True
