"""Copies to a device and back. Of CUDA there is a stand-in, which notes what is asked of it, in order."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from tsbs_daw.core.errors import DeviceLost
from tsbs_daw.network import TINY
from tsbs_daw.network.seam import SeparationNetwork
from tsbs_daw.separation.devices import HostTensor, JoinedFuture, Transfer, is_lost, is_out_of_memory
from tsbs_daw.separation.engine import Engine

CPU = torch.device("cpu")
AUDIO = np.random.default_rng(0).standard_normal((3, 2, 100)).astype(np.float32)


def test_what_goes_there_comes_back():
    for array in (AUDIO, AUDIO[:, ::-1], AUDIO.astype(np.float64)):
        transfer = Transfer(CPU)
        np.testing.assert_array_equal(transfer.download(transfer.upload(array)).array(), array)


def test_bfloat16_comes_back_as_float32():
    found = Transfer(CPU).download(torch.from_numpy(AUDIO).bfloat16()).array()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, AUDIO, rtol=1e-2)


def test_parts_are_joined_once_when_they_are_asked_for():
    calls = []

    def join(parts):
        calls.append(len(parts))
        return np.concatenate(parts)

    joined = JoinedFuture([HostTensor(torch.from_numpy(part)) for part in np.split(AUDIO, 3)], join)
    assert calls == []
    for _ in range(2):
        np.testing.assert_array_equal(joined.array(), AUDIO)
    assert calls == [3]


class Event:
    def __init__(self, noted: list[str], error: str = ""):
        self.noted, self.error = noted, error

    def synchronize(self) -> None:
        self.noted.append("synchronize")
        if self.error:
            raise RuntimeError(self.error)


class Stream:
    def __init__(self, name: str, noted: list[str]):
        self.name, self.noted = name, noted

    def wait_stream(self, other: Stream) -> None:
        self.noted.append(f"{self.name} waits for {other.name}")

    def record_event(self, event: Event) -> None:
        self.noted.append(f"event of {self.name}")


@pytest.fixture
def noted(monkeypatch) -> list[str]:
    """What was asked of the stand-in for CUDA."""
    noted: list[str] = []
    names = iter(["way in", "way out"])
    plain_to, plain_empty = torch.Tensor.to, torch.empty

    @contextlib.contextmanager
    def stream(chosen):
        noted.append(f"on {chosen.name}")
        yield
        noted.append("back")

    def to(tensor, device, **options):
        noted.append(f"copy to {device}{' at once' if not options.get('non_blocking') else ''}")
        return plain_to(tensor, "cpu").clone()

    def empty(*shape, pin_memory=False, **options):
        noted.append(f"{'pinned' if pin_memory else 'plain'} memory")
        return plain_empty(*shape, **options)

    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Event(noted if blocking else []))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(names), noted))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing", noted))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (noted.append("pin"), tensor.clone())[1])
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: noted.append(f"kept for {stream.name}"))
    return noted


def test_on_cuda_both_ways_are_pinned_and_on_streams_of_their_own(noted):
    transfer = Transfer(torch.device("cuda"))
    there = transfer.upload(AUDIO)
    assert noted == [
        "on way in", "pin", "copy to cuda", "back", "computing waits for way in", "kept for computing",
    ]  # fmt: skip
    noted.clear()
    coming = transfer.download(there)
    assert noted == [
        "way out waits for computing", "on way out", "pinned memory", "kept for way out", "event of way out", "back",
    ]  # fmt: skip
    noted.clear()
    np.testing.assert_array_equal(coming.array(), AUDIO)
    assert noted == ["synchronize"]


def test_a_gpu_that_failed_is_told_from_an_error_of_the_program():
    tensor = torch.from_numpy(AUDIO)
    lost = HostTensor(tensor, Event([], "CUDA error: an illegal memory access was encountered\nCompile with"))
    with pytest.raises(DeviceLost, match=r"^The GPU failed \(CUDA error: an illegal memory access was encountered\)"):
        lost.array()
    with pytest.raises(RuntimeError, match=r"^no such thing"):
        HostTensor(tensor, Event([], "no such thing")).array()


@pytest.mark.parametrize(
    ("text", "memory", "lost"),
    [
        ("CUDA error: out of memory", True, False),
        ("Triton Error [CUDA]: out of memory", True, False),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True, False),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True, False),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", True, False),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True, False),
        ("MPS backend out of memory (MPS allocated: 5 GB)", True, False),
        ("cuFFT error: CUFFT_INTERNAL_ERROR", True, False),
        ("level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)", True, False),
        ("Invalid buffer size: 12.00 GiB", True, False),
        ("cuFFT error: CUFFT_EXEC_FAILED", False, True),
        ("CUDA driver error: unknown error", False, True),
        ("Triton Error [CUDA]: an illegal memory access was encountered", False, True),
        ("CUDA error: unspecified launch failure", False, True),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False, True),
        ("HIP error: the operation cannot be performed", False, True),
        ("The size of tensor a (3) must match the size of tensor b (4)", False, False),
    ],
)
def test_lack_of_memory_and_a_lost_device_are_told_apart_by_their_words(text, memory, lost):
    assert (is_out_of_memory(RuntimeError(text)), is_lost(RuntimeError(text))) == (memory, lost)


class Broken(SeparationNetwork):
    config = TINY

    def __init__(self, *errors: str):
        super().__init__()
        self.errors = list(errors)

    def estimate(self, mixture, stage="full"):
        raise RuntimeError(self.errors.pop(0))

    def to(self, device):
        if device != CPU:
            raise RuntimeError(self.errors.pop(0))
        return self


LOST = "CUDA error: unspecified launch failure"


def test_an_engine_says_that_its_device_is_lost():
    with pytest.raises(DeviceLost, match="unspecified launch failure"):
        Engine(Broken(LOST), CPU).estimate(np.zeros((1, 2, 1000), np.float32))


def test_a_device_that_is_lost_while_a_model_loads_is_lost_too():
    with pytest.raises(DeviceLost, match="unspecified launch failure"):
        Engine(Broken(LOST), torch.device("cuda"))


def test_a_device_that_is_lost_while_memory_is_freed_is_lost_too(monkeypatch):
    def synchronize() -> None:
        raise RuntimeError(LOST)

    engine = Engine(Broken("CUDA error: out of memory"), CPU)
    monkeypatch.setattr(engine, "_free_memory", synchronize)
    with pytest.raises(DeviceLost, match="unspecified launch failure"):
        engine.estimate(np.zeros((1, 2, 1000), np.float32))
