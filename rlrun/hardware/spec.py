"""Where a run computes: device, threads and compilation, as plain data."""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
from annotated_types import Ge, Le

from rlrun.errors import UserError
from rlrun.hardware.cpu import available_cores, free_cores, has_bfloat16_products

# More threads than any machine has cores, and few enough that it can start them.
Threads = Annotated[int, Ge(1), Le(1024)]

# More would have a few microseconds of work each in products of 256 x 256 numbers.
MOST_OPERATION_THREADS = 4

# What others may use of a core that a thread is to have.
HALF_A_CORE = 0.5

# Of torch's compiler, in the environment of the process.
CACHE, COMPILE_THREADS = "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a run may use.

    Attributes:
        device: where the learner lives: "cpu", "cuda", "cuda:1".
        threads: threads for physics; None means all cores that this process may use.
        learner_threads: threads inside one tensor operation of the learner on the CPU; None: as
            many as for physics, as far as there is work for them.
        compile: "on" and "off", or "auto": when a C++ compiler is there and the run is long
            enough to win the time back (:class:`~rlrun.hardware.compile.Compilation`).
        products: how exact products of float32 matrices are: "highest"; "high": in TF32, on a GPU;
            "medium": the same there, in bfloat16 on CPUs that have it (large ones of compiled
            updates). A run of before this setting has none.
        jobs: runs of a sweep that are trained at the same time; "auto": as there is room for. A run
            of before this setting has none.
    """

    device: str
    threads: Threads | None
    learner_threads: Threads | None
    compile: Literal["auto", "off", "on"]
    products: Literal["highest", "high", "medium"] = "highest"
    jobs: Literal["auto"] | Threads = "auto"

    def __post_init__(self):
        """Refuse what is no device."""
        if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")

    @property
    def physics_threads(self) -> int:
        """Threads that step the environments."""
        return self.threads or available_cores()

    @property
    def operation_threads(self) -> int:
        """Threads inside one tensor operation on the CPU."""
        if self.learner_threads is not None:
            return self.learner_threads
        # Beside a GPU only the actor computes there.
        on_cpu = torch.device(self.device).type == "cpu"
        most = min(self.physics_threads, available_cores(), MOST_OPERATION_THREADS)
        return most if on_cpu else 1

    def torch_device(self) -> torch.device:
        """Return the learner's device.

        Raises:
            UserError: this machine does not have it.
        """
        device = torch.device(self.device)
        if device.type == "cuda":
            count = torch.cuda.device_count()
            if count == 0:
                raise UserError("hardware.device=cuda: no CUDA GPU found here; use hardware=cpu")
            if (device.index or 0) >= count:
                raise UserError(f"hardware.device={self.device}: this machine has {count} GPU(s)")
        return device

    def remarks(self) -> list[str]:
        """Return what a user may not have meant: more threads than cores, products as before.

        Looks for a third of a second whether others use the cores, if that matters.
        """
        cores = available_cores()
        remarks = [
            f"hardware.{name}={count}, but this process may use {cores} core{'s' * (cores > 1)}"
            for name, count in (
                ("threads", self.threads),
                ("learner_threads", self.learner_threads),
            )
            if count is not None and count > cores
        ]
        threads = self.operation_threads
        if 1 < threads <= cores and threads > (free := free_cores()) + HALF_A_CORE:
            remarks.append(
                f"other processes leave about {free:.1f} cores free: the {threads} threads of an "
                "operation will wait for each other, where fewer may be several times as fast "
                f"(hardware.learner_threads={max(1, int(free))})"
            )
        on_gpu = torch.device(self.device).type != "cpu"
        faster = on_gpu or (self.products == "medium" and has_bfloat16_products())
        if self.products != "highest" and not faster:
            remarks.append(
                f"hardware.products={self.products}: this processor has no such products, which "
                "stay in float32"
            )
        elif self.products != "highest" and not on_gpu and self.compile == "off":
            remarks.append(
                f"hardware.products={self.products} is for compiled updates: with "
                "hardware.compile=off they stay in float32"
            )
        return remarks

    def prepare(self) -> None:
        """Set the process up: threads, products, a cache of compiled code that outlives the run.

        `settings_kept` gives back what it was before.
        """
        torch.set_num_threads(self.operation_threads)
        torch.set_float32_matmul_precision(self.products)
        torch.set_default_dtype(torch.float32)
        os.environ.setdefault(CACHE, str(cache_directory()))
        # The learner is one function, so that worker processes have nothing to share; left
        # running, they would answer the terminal's Ctrl-C with tracebacks of their own.
        os.environ.setdefault(COMPILE_THREADS, "1")

    def side_by_side(self, *, learners: int = 2) -> "SideBySide":
        """Return what calls two functions at the same time, where that is faster.

        Args:
            learners: how many of the two are a learner's, whose operations have several threads;
                the other has one. With more threads than cores they would wait for each other: an
                update from a replay buffer took three times as long.
        """
        threads = self.operation_threads
        on_cpu = torch.device(self.device).type == "cpu"
        room = learners * threads + (2 - learners) <= self.physics_threads
        return SideBySide(apart=on_cpu and room, operation_threads=threads)


class SideBySide:
    """Calls two independent functions, at the same time where that is faster.

    Compiled code for the CPU runs without Python's lock, which would make two threads of eager code
    slower than one. The results are those of calling one after the other.
    """

    def __init__(self, *, apart: bool, operation_threads: int):
        """Make the second thread, which starts at its first use and ends with this object.

        Args:
            apart: whether to use it at all.
            operation_threads: of its tensor operations; a new thread takes all cores for them
                unless it is told, and each of the two functions would wait for the other's.
        """
        self._apart = apart
        self._second = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="rlrun-learner",
            initializer=torch.set_num_threads,
            initargs=(operation_threads,),
        )

    def __call__(
        self, first: Callable[[], A], second: Callable[[], B], *, compiled: bool
    ) -> tuple[A, B]:
        """Call two functions.

        Args:
            first: called in this thread.
            second: called in another one, if there are several; else before the first, which may
                go on while a GPU does what the second asked it for.
            compiled: whether both spend their time in compiled code.
        """
        if not (compiled and self._apart):
            result = second()
            return first(), result
        other = self._second.submit(second)
        try:
            return first(), other.result()
        finally:
            wait([other])  # also when the first one raised: nothing may go on behind one's back


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put back at the end of the block what `Hardware.prepare` sets: this may be a notebook."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    precision = torch.get_float32_matmul_precision()
    variables = {name: os.environ.get(name) for name in (CACHE, COMPILE_THREADS)}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(dtype)
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def cache_directory() -> Path:
    """Return where compiled code outlives the process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlrun" / "inductor"
    return Path(os.environ.get(CACHE, cache))
