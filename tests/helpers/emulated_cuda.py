"""A CUDA device that is not there: tensors that say they are on ``cuda:0``, computed on the CPU, and watched.

Within `EmulatedCuda` every operation on such a tensor gives its true result, and a program is held
to what a GPU holds it to: operands on one device, no work on what another stream has not finished,
no page-locked memory read or written while a copy is under way, ``record_stream`` on what crosses
streams. All copies between host and device, and all calls that make the host wait, are written
down. What it cannot show: kernels, their speed and their rounding.
"""

from collections import namedtuple
from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda:0")
aten = torch.ops.aten
# What has a size that depends on values, or a value on the host: the host waits for the device.
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.is_nonzero.default,
}

Copy = namedtuple("Copy", "shape dtype blocking")


class DeviceFault(AssertionError):
    """The program would go wrong, or give wrong numbers, on a GPU."""


class _Storage:
    """Who wrote a piece of device memory last, where it was allocated, and who uses it."""

    def __init__(self, stream):
        self.owner = stream
        self.written = (stream, stream.clock)
        self.used, self.recorded = set(), set()


class OnDevice(torch.Tensor):
    """A tensor on the emulated device; `inner` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner, storage):
        with _disable_current_modes():
            like = torch.empty_strided(
                inner.shape, inner.stride(), dtype=inner.dtype, device="meta"
            )
            made = torch.Tensor._make_subclass(
                cls, like, False, dispatch_device=False, device_for_backend_keys=CUDA
            )
        made.inner, made.kept = inner, storage
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise DeviceFault(f"{func} on a device tensor outside EmulatedCuda, or in another thread")

    def record_stream(self, stream):
        self.kept.recorded.add(stream)

    def numpy(self, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


class Stream:
    """A queue of work: `clock` counts what was given to it, `seen` what it has waited for on other streams."""

    def __init__(self, device=None, priority=0):
        self.clock, self.seen = 0, {}

    def has_seen(self, stream, clock):
        return stream is self or self.seen.get(stream, 0) >= clock

    def wait_event(self, event):
        for stream, clock in {**event.seen, event.stream: event.clock}.items():
            self.seen[stream] = max(clock, self.seen.get(stream, 0))

    def wait_stream(self, stream):
        self.wait_event(stream.record_event())

    def record_event(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self):
        self.record_event().synchronize()


class Event:
    """A mark in a stream."""

    def __init__(self, enable_timing=False, blocking=False):
        self.blocking = blocking

    def record(self, stream=None):
        self.stream = stream or torch.cuda.current_stream()
        self.clock, self.seen = self.stream.clock, dict(self.stream.seen)

    def synchronize(self):
        EmulatedCuda.active.finish_copies(self)


class EmulatedCuda(TorchDispatchMode):
    """Makes ``cuda:0`` exist, and records `up`, `down` (copies to and from it) and `waits`."""

    active = None

    def __init__(self):
        super().__init__()
        self.up, self.down, self.waits = [], [], []
        self.stream = self.main = Stream()
        self._pinned = {}
        self._storages = {}
        self._under_way = []
        self._all = []

    # -- what the program sees of torch.cuda ---------------------------------------------------------------

    def __enter__(self):
        make = torch.tensor

        def tensor(
            data, *args, device=None, **options
        ):  # its way to a device does not pass a dispatch mode
            made = make(data, *args, **options)
            return made if device is None else made.to(device)

        replaced = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "is_bf16_supported": lambda *args, **options: True,
            "get_device_capability": lambda device=None: (8, 0),
            "get_device_name": lambda device=None: "emulated",
            "empty_cache": lambda: None,
            "_lazy_init": lambda: None,
            "current_stream": lambda device=None: self.stream,
            "stream": self._on,
            "Stream": Stream,
            "Event": Event,
            "synchronize": lambda device=None: self._wait_for_stream(),
        }
        self._patches = [
            mock.patch.object(torch.cuda, name, value) for name, value in replaced.items()
        ]
        self._patches.append(mock.patch.object(torch, "tensor", tensor))
        # Inference tensors have no version counter, which a view of an `OnDevice` is given all the
        # same.
        self._patches.append(mock.patch.object(torch, "inference_mode", torch.no_grad))
        self._patches.append(
            mock.patch.object(torch.__future__, "_overwrite_module_params_on_conversion", True)
        )
        for patch in self._patches:
            patch.start()
        EmulatedCuda.active = self
        return super().__enter__()

    def __exit__(self, *error):
        try:
            return super().__exit__(*error)
        finally:
            EmulatedCuda.active = None
            for patch in self._patches:
                patch.stop()

    @contextmanager
    def _on(self, stream):
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def forget(self):
        """Begin the record anew."""
        self.up, self.down, self.waits = [], [], []

    def check(self):
        """Raise for memory that crossed streams without `record_stream`: it could be given away while in use."""
        for storage in self._all:
            if storage.used - storage.recorded - {storage.owner}:
                raise DeviceFault("memory of one stream was used by another without record_stream")

    # -- copies ----------------------------------------------------------------------------------------------

    def finish_copies(self, event):
        """Deliver what was under way when the event was recorded."""
        due = {**event.seen, event.stream: event.clock}
        still = []
        for stream, clock, deliver in self._under_way:
            if due.get(stream, -1) >= clock:
                deliver()
            else:
                still.append((stream, clock, deliver))
        self._under_way = still

    def _wait_for_stream(self):
        """Let the host wait for all that was given to the current stream."""
        self.finish_copies(self.stream.record_event())

    def _copy_up(self, source, dtype, blocking):
        blocking = blocking or not self._is_pinned(source)
        self.up.append(Copy(tuple(source.shape), source.dtype, blocking))
        self.stream.clock += 1
        if not blocking:
            given = source.clone()

            def deliver():
                if not torch.equal(source, given):
                    raise DeviceFault(
                        "page-locked memory was overwritten before its copy to the device had "
                        "finished"
                    )

            self._under_way.append((self.stream, self.stream.clock, deliver))
        return self._on_device(source.to(dtype=dtype or source.dtype, copy=True))

    def _copy_down(self, source, target, blocking):
        blocking = blocking or not self._is_pinned(target)
        self.down.append(Copy(tuple(source.shape), source.dtype, blocking))
        self._use([source])
        if blocking:
            self._wait_for_stream()
            target.copy_(source.inner)
        else:
            arrived = source.inner.clone()
            target.fill_(float("nan") if target.is_floating_point() else 0)
            self._under_way.append((self.stream, self.stream.clock, lambda: target.copy_(arrived)))
        return target

    def _is_pinned(self, tensor):
        return tensor.untyped_storage().data_ptr() in self._pinned

    # -- operations ------------------------------------------------------------------------------------------

    def _on_device(self, inner):
        """Wrap a result; memory that it shares with an operand keeps its history."""
        key = inner.untyped_storage().data_ptr()
        storage = self._storages.get(key)
        if storage is None:
            storage = self._storages[key] = _Storage(self.stream)
            self._all.append(storage)
        storage.written = (self.stream, self.stream.clock)
        return OnDevice(inner, storage)

    def _use(self, tensors):
        self.stream.clock += 1
        # Only these storages are known to be alive: the address of any other may have been given to
        # a new tensor.
        self._storages = {}
        for tensor in tensors:
            writer, clock = tensor.kept.written
            if not self.stream.has_seen(writer, clock):
                raise DeviceFault(
                    "a stream works on what another stream has not finished: wait_stream is missing"
                )
            tensor.kept.used.add(self.stream)
            self._storages[tensor.inner.untyped_storage().data_ptr()] = tensor.kept

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **kwargs)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        wanted = kwargs.get("device")
        # Operations that take the device of an operand inside torch find "meta", what it takes
        # `OnDevice` for.
        to_device = (
            torch.device(wanted).type in ("cuda", "meta") if wanted is not None else bool(there)
        )
        if func is aten._to_copy.default and to_device != bool(there):
            blocking = not kwargs.get("non_blocking", False)
            if to_device:
                return self._copy_up(args[0], kwargs.get("dtype"), blocking)
            target = torch.empty(args[0].shape, dtype=args[0].dtype)
            return self._copy_down(args[0], target, True).to(kwargs.get("dtype") or target.dtype)
        if func is aten.copy_.default and len(there) == 1:
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            if there[0] is args[1]:
                return self._copy_down(args[1], args[0], blocking)
            self._use([args[0]])
            args[0].inner.copy_(self._copy_up(args[1], args[0].dtype, blocking).inner)
            return args[0]
        if not there and not to_device:
            pin = kwargs.pop("pin_memory", None)
            made = func(*args, **kwargs)
            if pin:
                self._pinned[made.untyped_storage().data_ptr()] = made
            return made
        strangers = [leaf for leaf in leaves if not isinstance(leaf, OnDevice) and leaf.ndim]
        if strangers:
            raise DeviceFault(
                f"{func}: operands on cuda:0 and on the CPU (shape {tuple(strangers[0].shape)})"
            )
        if func in WAITS:
            self.waits.append(func)
        self._use(there)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        inner_args, inner_kwargs = tree_map(
            lambda x: x.inner if isinstance(x, OnDevice) else x, (args, kwargs)
        )
        result = func(*inner_args, **inner_kwargs)
        same = {id(leaf.inner): leaf for leaf in there}

        def wrap(value):
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in same:  # in place, or out=
                same[id(value)].kept.written = (self.stream, self.stream.clock)
                return same[id(value)]
            return self._on_device(value)

        return tree_map(wrap, result)
