# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The model that shall be compiled: from `package.module:factory`, or a program that
torch.export.save wrote, to an exported program and its signature."""

import copy
import dataclasses
import hashlib
import importlib
import inspect
import io
import logging
import pathlib
import re
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch.utils import _pytree as pytree

from .tensors import DTYPES, Signature, TensorSpec, UsageError, order_inputs

ANY_SIZE = 16  # What stands for a dim of -1 where something has to.
USUAL_BATCH = 8
DTYPE_NAMES = {getattr(torch, name): dtype for dtype, name in DTYPES.items() if hasattr(torch, name)}


@dataclasses.dataclass
class Source:
    module: torch.nn.Module  # The original, which takes its inputs by position.
    program: torch.export.ExportedProgram
    signature: Signature

    def batch_sizes(self) -> List[int]:
        """Those that are tried; 0: as it is."""
        return sizes_to_try(self.signature.max_batch_size)

    def run(self, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """What the original makes of them, in the order of the signature."""
        with torch.no_grad():
            return pytree.tree_leaves(self.module(*[value.clone() for value in inputs]))

    def digest(self) -> str:
        """Of all that a package is made of: the program's code, its ranges and its weights."""
        digest = hashlib.sha256()
        for name, module in self.program.graph_module.named_modules():
            if isinstance(module, torch.fx.GraphModule):
                digest.update(f"{name}\n{module.graph}\n".encode())
        for node in self.program.graph.find_nodes(op="placeholder"):
            value = node.meta.get("val")
            digest.update(f"{node.name} {getattr(value, 'shape', value)} "
                          f"{getattr(value, 'dtype', '')}\n".encode())
        digest.update(f"{self.program.range_constraints}\n{self.program.call_spec}\n"
                      f"{self.signature}\n".encode())
        weights = {**self.program.state_dict, **self.program.constants}
        for name, value in sorted(weights.items()):
            if isinstance(value, torch.Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                bytes_of = value.detach().contiguous().reshape(-1).view(torch.uint8)
                digest.update(bytes_of.numpy().data)
        return digest.hexdigest()

    def in_bf16(self) -> "Source":
        """The same with its weights and what it computes in BF16, and the same signature."""
        module = InBfloat16(copy.deepcopy(self.module), self.run(self.example()))
        return Source(module, export_module(module, self.signature, many=True), self.signature)

    def example(self) -> List[torch.Tensor]:
        return example_inputs(self.signature)


class InBfloat16(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, outputs: Sequence[torch.Tensor]):
        super().__init__()
        self.module = module.to(torch.bfloat16)
        self.dtypes = [output.dtype for output in outputs]

    def forward(self, *inputs):
        narrow = [value.to(torch.bfloat16) if value.is_floating_point() else value
                  for value in inputs]
        leaves, spec = pytree.tree_flatten(self.module(*narrow))
        return pytree.tree_unflatten([leaf.to(dtype) for leaf, dtype in zip(leaves, self.dtypes)],
                                     spec)


def sizes_to_try(max_batch_size: int) -> List[int]:
    """Of batches; 0 where there is no batch dimension."""
    return sorted({size for size in (1, 2, max_batch_size) if size <= max_batch_size} or {0})


def load(model: str, specs: Sequence[TensorSpec], max_batch_size: Optional[int]) -> Source:
    """Loads `package.module:factory` or the file of an exported program."""
    if pathlib.Path(model).is_file():
        if specs:
            raise UsageError(f"{model} is a file, which says itself what it takes: leave out --input")
        return from_program(pathlib.Path(model), max_batch_size)
    module = make_module(model)
    return from_module(module, specs, USUAL_BATCH if max_batch_size is None else max_batch_size)


# ---- A module ----


def make_module(entry: str) -> torch.nn.Module:
    if not re.fullmatch(r"[\w.]+:\w+", entry):
        raise UsageError(f"'{entry}' is neither a file nor an entry; expected "
                         "package.module:factory, or a file that torch.export.save wrote")
    name, _, factory_name = entry.partition(":")
    try:
        python_module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UsageError(f"there is no Python module '{name}': run this in the folder that it "
                             "is imported from, or name that folder in PYTHONPATH") from error
        raise UsageError(f"importing '{name}' takes '{error.name}', which this Python lacks") from error
    except Exception as error:
        raise UsageError(f"importing '{name}' raised {said(error)}") from error
    factory = getattr(python_module, factory_name, None)
    if factory is None:
        near = [key for key, value in vars(python_module).items()
                if callable(value) and getattr(value, "__module__", "") == name]
        raise UsageError(f"'{name}' has no '{factory_name}'; it has {', '.join(near) or 'nothing'}"
                         " that can be called")
    if isinstance(factory, torch.nn.Module):
        module = factory
    elif callable(factory):
        try:
            module = factory()
        except Exception as error:
            raise UsageError(f"{entry} raised {said(error)}; it is called without arguments") from error
    else:
        raise UsageError(f"{entry} is of the type {type(factory).__name__}; expected what returns "
                         "a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"{entry} returned a TorchScript module, which can't be exported; return "
                         "the torch.nn.Module that it was made of")
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{entry} returned an object of the type {type(module).__name__}; expected "
                         "a torch.nn.Module")
    return module.eval().cpu().requires_grad_(False)


def arguments_of(module: torch.nn.Module) -> Tuple[List[str], int]:
    """The names of forward()'s arguments, and how many of them have no default."""
    kinds = inspect.Parameter
    parameters = list(inspect.signature(module.forward).parameters.values())
    if any(parameter.kind == kinds.VAR_POSITIONAL for parameter in parameters):
        raise UsageError("forward() takes *arguments; give them names, since a server's inputs "
                         "have some")
    plain = [parameter for parameter in parameters
             if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    return [parameter.name for parameter in plain], sum(parameter.default is kinds.empty
                                                       for parameter in plain)


def from_module(module: torch.nn.Module, specs: Sequence[TensorSpec], max_batch_size: int) -> Source:
    inputs = order_inputs(specs, *arguments_of(module))
    signature = Signature(inputs, [], max_batch_size)
    for rows in sizes_to_try(max_batch_size):
        try_module(module, signature, rows)
    program = export_module(module, signature)
    with torch.no_grad():
        returned = module(*example_inputs(signature))
    return Source(module, program, complete(signature, program, returned))


def try_module(module: torch.nn.Module, signature: Signature, rows: int) -> None:
    try:
        with torch.no_grad():
            module(*example_inputs(signature, rows))
    except Exception as error:
        shapes = ", ".join(str(list(value.shape)) for value in example_inputs(signature, rows))
        raise UsageError(f"the module raised on inputs of the shape {shapes}: {said(error)}; "
                         "--input gives shapes without the batch dimension, and --max-batch-size 0 "
                         "says that there is none") from error


def export_module(module: torch.nn.Module, signature: Signature, many: bool = False):
    """Exports it with a dynamic batch; `many`: forward() takes *arguments.

    libtorch chooses a convolution's code by whether there are 16 rows, and what holds for the
    example's rows Inductor takes for granted. Of up to 16 that would leave 16 as the only number."""
    most = signature.max_batch_size + (signature.max_batch_size == 16)
    batch = torch.export.Dim("batch", min=1, max=max(2, most))
    shapes: List[Dict[int, Any]] = []
    for spec in signature.inputs:
        first = 1 if signature.max_batch_size else 0
        dims: Dict[int, Any] = {place + first: torch.export.Dim.DYNAMIC
                                for place, dim in enumerate(spec.dims) if dim == -1}
        if signature.max_batch_size > 1:
            dims[0] = batch
        shapes.append(dims)
    unread = io.StringIO()  # When it fails, it prints what it has captured so far.
    logging.disable(logging.WARNING)
    try:
        with torch.no_grad(), redirect_stdout(unread), redirect_stderr(unread):
            return torch.export.export(module, tuple(example_inputs(signature)),
                                       dynamic_shapes=(tuple(shapes),) if many else tuple(shapes))
    except Exception as error:
        raise UsageError(explain_export(error)) from error
    finally:
        logging.disable(logging.NOTSET)


def explain_export(error: Exception) -> str:
    """What torch.export said, in a sentence, and what can be done."""
    text = str(error)
    where = re.findall(r'File "([^"]+)", line (\d+), in forward', text)
    place = f" ({where[-1][0]}:{where[-1][1]})" if where else ""
    fixed = re.search(r"(?:You marked|Not all values of) (\w+).*", text)
    sentence = fixed[0] if fixed else said(error)
    begin = f"torch.export can't capture the module{place}: {sentence}"
    if "data-dependent" in text or "dynamic control flow" in text:
        return (f"{begin}. Its code goes by what is in a tensor, which compiled code can't: choose "
                "with torch.where or torch.cond, or serve it as TorchScript (torch.jit.script)")
    if fixed:
        return (f"{begin}. Its code takes the size of a batch or another dim for a fixed number: "
                "take it from x.shape, use -1 in view() and reshape(), or say --max-batch-size 0 or 1")
    return (f"{begin}. Rewrite what it names, or serve the module as TorchScript (torch.jit.script "
            "or torch.jit.trace)")


# ---- An exported program ----


def from_program(path: pathlib.Path, max_batch_size: Optional[int]) -> Source:
    refuse_other_files(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise UsageError(f"{path} can't be loaded by this torch ({torch.__version__}): "
                         f"{said(error)}; save it again with this version") from error
    refuse_other_arguments(path, program)
    values = [value_of(program, name) for name in program.graph_signature.user_inputs]
    inputs = [spec_of(value, str(name), program)
              for name, value in zip(program.graph_signature.user_inputs, values)]
    most = batch_limit(program, values)
    if most is None:
        if max_batch_size:
            raise UsageError(f"--max-batch-size {max_batch_size}: the first dim of {path}'s inputs "
                             "isn't one dynamic dim of all of them, so it takes no batches; export "
                             "it with torch.export.Dim(\"batch\", min=1, max=…) in dynamic_shapes")
        signature = Signature(inputs, [], 0)
    else:
        rows = max_batch_size or min(most, USUAL_BATCH if most > 1 << 20 else most)
        if rows > most:
            raise UsageError(f"--max-batch-size {rows}: {path} was exported for at most {most} rows")
        inputs = [dataclasses.replace(spec, dims=spec.dims[1:]) for spec in inputs]
        signature = Signature(inputs, [], rows)
    module = program.module()
    for rows in sizes_to_try(signature.max_batch_size):
        try_module(module, signature, rows)
    with torch.no_grad():
        returned = module(*example_inputs(signature))
    return Source(module, program, complete(signature, program, returned))


def refuse_other_files(path: pathlib.Path) -> None:
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any("/aotinductor/" in name for name in names):
        raise UsageError(f"{path} is a package that is compiled already; give what it was made of")
    if any("/code/" in name for name in names):
        raise UsageError(f"{path} is TorchScript, which can't be exported; give the module that it "
                         "was made of, as package.module:factory")
    if not any(name.endswith(("/models/model.json", "serialized_exported_program.json"))
               for name in names):
        raise UsageError(f"{path} is no exported program; expected a file that torch.export.save "
                         "wrote, or package.module:factory")


def refuse_other_arguments(path: pathlib.Path, program: torch.export.ExportedProgram) -> None:
    """A server gives a model its tensors one by one, and what is compared with it takes them so."""
    positional, by_name = program.call_spec.in_spec.children()
    if by_name.children():
        raise UsageError(f"{path} was exported with {', '.join(by_name.context)} in kwargs; export "
                         "it with all of its tensors in args, by position")
    for place, argument in enumerate(positional.children(), 1):
        if not argument.is_leaf():
            raise UsageError(f"argument {place} of {path} is a {argument.type.__name__} that holds "
                             f"{argument.num_leaves} values; export a module whose forward() takes "
                             "each tensor as an argument of its own")


def value_of(program: torch.export.ExportedProgram, name: str) -> Any:
    return next((node.meta.get("val") for node in program.graph.nodes if node.name == name), None)


def spec_of(value: Any, name: str, program: torch.export.ExportedProgram) -> TensorSpec:
    if not isinstance(value, torch.Tensor) or value.dtype not in DTYPE_NAMES:
        raise UsageError(f"'{name}' is {getattr(value, 'dtype', type(value).__name__)}; only "
                         f"tensors of {', '.join(DTYPES)} can be served")
    return TensorSpec(name, DTYPE_NAMES[value.dtype],
                      tuple(size if isinstance(size, int) else -1 for size in value.shape))


def batch_limit(program: torch.export.ExportedProgram,
                values: Sequence[torch.Tensor]) -> Optional[int]:
    """The most rows, where all inputs' first dims are the same dynamic one; else None."""
    firsts = {str(value.shape[0]) if value.dim() and not isinstance(value.shape[0], int) else None
              for value in values}
    if len(firsts) != 1 or None in firsts:
        return None
    ranges = {str(symbol): limits for symbol, limits in program.range_constraints.items()}
    limits = ranges.get(firsts.pop())
    if limits is None:
        return None
    if limits.lower > 1:
        raise UsageError(f"the program was exported for batches of {limits.lower} rows or more, "
                         "and a server sends single rows, too; export it with min=1 in torch.export.Dim")
    return int(min(limits.upper, 1 << 30))


# ---- Both ----


def complete(signature: Signature, program: torch.export.ExportedProgram,
             returned: Any) -> Signature:
    """The signature with its outputs, named by the keys of dicts, else by their places."""
    leaves = pytree.tree_flatten_with_path(returned)[0]
    keys = [[str(key.key) for key in path if isinstance(key, pytree.MappingKey)]
            for path, _ in leaves]
    names = [key[-1] if key else "" for key in keys]
    if not all(names) or len(set(names)) < len(names):
        names = [f"OUTPUT__{place}" for place in range(len(leaves))]
    values = [value_of(program, name) for name in program.graph_signature.user_outputs]
    if len(values) != len(leaves) or not values:
        raise UsageError(f"the module returns {len(leaves)} values, {len(values)} of which are "
                         "tensors; return a tensor, or a tuple, list or dict of them")
    outputs = [spec_of(value, name, program) for name, value in zip(names, values)]
    if signature.max_batch_size:
        rows = example_inputs(signature)[0].shape[0]
        for spec, (_, leaf) in zip(outputs, leaves):
            batched = leaf.dim() and leaf.shape[0] == rows
            if not batched or (signature.max_batch_size > 1 and spec.dims[0] != -1):
                raise UsageError(f"output '{spec.name}' has the shape {list(leaf.shape)} for "
                                 f"{rows} rows; expected as many rows as the inputs have, in its "
                                 "first dim; say --max-batch-size 0 if the model has no batch dimension")
        outputs = [dataclasses.replace(spec, dims=spec.dims[1:]) for spec in outputs]
    return dataclasses.replace(signature, outputs=outputs)


def example_inputs(signature: Signature, rows: Optional[int] = None,
                   seed: int = 0) -> List[torch.Tensor]:
    """Random values: floating-point ones normal, integers 0 or 1 (but pixels), as many rows as a
    full batch has."""
    generator = torch.Generator().manual_seed(seed)
    rows = signature.max_batch_size if rows is None else rows
    return [random_tensor(spec, ([rows] if signature.max_batch_size else []) +
                          [ANY_SIZE if dim == -1 else dim for dim in spec.dims], generator)
            for spec in signature.inputs]


def random_tensor(spec: TensorSpec, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    dtype = getattr(torch, DTYPES[spec.dtype])
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    most = 256 if dtype == torch.uint8 else 2
    return torch.randint(0, most, shape, generator=generator).to(dtype)


def said(error: BaseException) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
