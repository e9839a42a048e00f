"""An accelerator that does not exist, for a rehearsal on machines that have none.

Tensors of the device ``pretended`` keep their numbers on the CPU, but PyTorch takes them for tensors of an accelerator
(its PrivateUse1 key). Within :func:`rehearsal` the device behaves like a strict accelerator:

- an operation of tensors of both devices raises an error, as on every accelerator;
- so does a random generator of the other device;
- so does double precision, which Apple's GPUs do not have;
- every point at which the CPU would wait for the device is recorded (:attr:`Recorder.waits`).

Numbers are those of the CPU, so results can be compared. Why not ``torch.FakeTensorMode``: its tensors have no values,
and PyTorch without CUDA aborts the process when one of them requires a gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.utils.backend_registration
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "pretended"
aten = torch.ops.aten
_ACTIVE: list[Recorder] = []
_KEPT: list[torch.library.Library] = []
"""A library's kernels are gone with it."""

MOVES = {aten._to_copy.default, aten.copy_.default}
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.equal}
"""Operations whose result the CPU needs before it can go on."""


class _Module:
    """What PyTorch asks of the module of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def device_count(self) -> int:
        return 1

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def is_possible() -> bool:
    """Whether this PyTorch can make up a device; older ones cannot."""
    return hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")


def install() -> None:
    """Make the device known to PyTorch, for all that this process does from then on.

    It has to be called before the first derivative, for which PyTorch counts its devices.
    """
    setup = torch.utils.backend_registration._setup_privateuseone_for_python_backend
    if torch._C._get_privateuse1_backend_name() != NAME:
        setup(NAME, _Module())
        # torch.tensor(..., device=...) passes by the modes of Python.
        library = torch.library.Library("aten", "IMPL")
        for func in (aten.empty.memory_format, aten.empty_strided.default, aten._to_copy.default, aten.copy_.default):
            library.impl(func, partial(_kernel, func), "PrivateUse1")
        _KEPT.append(library)


def _kernel(func: Any, *args: Any, **kwargs: Any) -> Any:
    return run(func, args, kwargs, _ACTIVE[-1])


class Recorder(TorchDispatchMode):
    """Carry out operations of both devices, refuse mixed ones, and record waits.

    Attributes
    ----------
    waits
        Names of operations for which the CPU waited, in order.
    generators
        Device of the last random generator with a seed. PyTorch hands operations another object than the caller's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.generators: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(func, args, kwargs or {}, self)


class OnDevice(torch.Tensor):
    """Tensor of the pretended device, around one of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=torch.device(NAME, 0), **layout)

    def __init__(self, inner: torch.Tensor) -> None:
        if inner.dtype == torch.float64:
            raise TypeError("the pretended device has no double precision")
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnDevice({self.inner})"

    @property
    def data(self) -> torch.Tensor:
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value: OnDevice) -> None:
        torch.Tensor.data.__set__(self, value)
        self.inner = value.inner

    def tolist(self) -> Any:
        _ACTIVE[-1].waits.append("tolist")
        return self.inner.tolist()

    def numpy(self, **kwargs: Any) -> Any:
        raise TypeError("can't convert a tensor of the pretended device to numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the pretended device outside of the rehearsal")


def run(func: Any, args: tuple, kwargs: dict, recorder: Recorder) -> Any:
    """Carry out one operation."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    asked = kwargs.get("device")
    target = torch.device(NAME if there else "cpu") if asked is None else torch.device(asked)
    # Numbers without dimensions may come from the CPU on every accelerator.
    here = [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.ndim]
    if there and here and func not in MOVES:
        raise RuntimeError(f"{func}: tensors of two devices")
    generator = kwargs.get("generator")
    of = "cpu" if generator is None else recorder.generators.get(generator.initial_seed(), "cpu")
    if generator is not None and of != target.type:
        raise RuntimeError(f"{func}: a generator of {of} for tensors of {target.type}")
    if there and _is_wait(func, args, target):
        recorder.waits.append(str(func))
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func is aten._efficientzerotensor.default:
        # Tangents that are zero have no numbers, which the operations below derivatives cannot read.
        func = aten.zeros.default
    result = func(*tree_map_only(OnDevice, _inner, args), **tree_map_only(OnDevice, _inner, kwargs))
    if func is aten.copy_.default:
        return args[0]
    if target.type == "cpu":
        return result
    known = {id(tensor.inner): tensor for tensor in there}
    return tree_map_only(
        torch.Tensor, lambda found: known[id(found)] if id(found) in known else OnDevice(found), result
    )


def _inner(tensor: OnDevice) -> torch.Tensor:
    return tensor.inner


def _is_wait(func: Any, args: tuple, target: torch.device) -> bool:
    if func is aten.copy_.default:
        return not isinstance(args[0], OnDevice) or not isinstance(args[1], OnDevice)
    if func is aten._to_copy.default:
        return target.type == "cpu"
    is_mask = func.overloadpacket in {aten.index, aten.index_put, aten.index_put_} and any(
        isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
    )
    return is_mask or func.overloadpacket in WAITS


class _Generator(torch.Generator):
    """Generator of the CPU that passes for one of the device it was made for."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, device="cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.made_for = torch.device(device).type

    def manual_seed(self, seed: int) -> _Generator:
        super().manual_seed(seed)
        _ACTIVE[-1].generators[seed] = self.made_for
        return self


@contextlib.contextmanager
def rehearsal() -> Iterator[Recorder]:
    """Pretend that this machine has the accelerator; :func:`install` comes first."""
    original, torch.Generator = torch.Generator, _Generator  # type: ignore[misc]
    try:
        with Recorder() as recorder:
            _ACTIVE.append(recorder)
            yield recorder
    finally:
        _ACTIVE.pop()
        torch.Generator = original  # type: ignore[misc]


class PretendedAccelerator(Accelerator):
    """The device as Lightning knows accelerators."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


AcceleratorRegistry.register(NAME, PretendedAccelerator)
