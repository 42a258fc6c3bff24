"""A second device for tests, "elsewhere": it computes on the CPU, but as a GPU does it refuses the CPU's tensors.

PyTorch lets a backend be written in Python (torch.utils.backend_registration; experimental). Tensors of this one
have a shape, strides and a storage without numbers; the numbers of each storage lie in NUMBERS. As on Apple's
GPUs, there is no float64. Import it in a process of its own: what it registers stays.
"""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
NUMBERS = {}  # a storage's address -> the storage, weakly, and its numbers, in one row on the CPU
VIEWS = ("aten::as_strided", "aten::view", "aten::_reshape_alias")  # no numbers are touched, only shape and strides
SHAPES_ONLY = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def is_there(x) -> bool:
    return isinstance(x, Tensor) and x.device.type == NAME


def there(x):  # anything; a tensor of the CPU comes back as one of the device
    if not isinstance(x, Tensor) or is_there(x):
        return x
    if x.dtype == torch.float64:
        raise TypeError(f"{NAME} has no float64")
    made = torch._C._acc.create_empty_tensor(x.shape, x.dtype)
    storage = made.untyped_storage()
    NUMBERS[storage._cdata] = StorageWeakRef(storage), x.flatten().clone()
    if len(NUMBERS) > 4000:
        for gone in [key for key, (known, _) in NUMBERS.items() if known.expired()]:
            del NUMBERS[gone]
    return made


def here(x):  # anything; a tensor of the device comes back as its numbers on the CPU, not copied
    if not is_there(x):
        return x
    return NUMBERS[x.untyped_storage()._cdata][1].as_strided(x.shape, x.stride(), x.storage_offset())


def numbers_of(given):  # arguments; the same, with tensors of the CPU
    """Refuse the CPU's own tensors, as a GPU does; only single numbers may come from there."""
    if any(isinstance(x, Tensor) and not is_there(x) and x.dim() for x in tree_leaves(given)):
        raise RuntimeError(f"expected all tensors on {NAME}, but one is on the CPU")
    return tree_map(here, given)


def compute(op, *args, **kwargs):
    """Any operation of PyTorch's: on the numbers, with the CPU's own code."""
    if op._schema.name in VIEWS:
        return op.redispatch(SHAPES_ONLY, *args, **kwargs)
    if op._schema.name == "aten::_copy_from":  # between the devices, or on this one
        here(args[1]).copy_(here(args[0]))
        return args[1]
    kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory")}
    numbers, options = numbers_of((args, kwargs))
    outs = [arg.name for arg in op._schema.arguments if arg.is_out and arg.name in kwargs]
    made = op(*numbers, **options | {out: options[out].new_empty(0) for out in outs})  # they may be of another size yet
    if outs:
        for out, x in zip(outs, made if isinstance(made, tuple) else [made], strict=True):
            kwargs[out].data = there(x)
        return kwargs[outs[0]] if len(outs) == 1 else tuple(kwargs[out] for out in outs)
    if op._schema.is_mutable:  # in place
        written = [x for x, arg in zip(args, op._schema.arguments, strict=False) if arg.is_write]
        return written[0] if len(written) == 1 else made
    return tree_map(there, made)


def convolve(*args):
    return there(torch.ops.aten.convolution(*numbers_of(args)))


def convolve_backward(*args):
    grad, x, weight, *more = numbers_of(args)
    return tree_map(there, torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *more))


_setup_privateuseone_for_python_backend(NAME, Backend())
EVERYTHING, CONVOLUTION = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
EVERYTHING.fallback(compute, "PrivateUse1")
EVERYTHING.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # autocast changes nothing here
CONVOLUTION.impl("convolution_overrideable", convolve, "PrivateUse1")
CONVOLUTION.impl("convolution_backward_overrideable", convolve_backward, "PrivateUse1")
torch.__future__.set_swap_module_params_on_conversion(True)  # a moved module keeps its parameters, as on a GPU
