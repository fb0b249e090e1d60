"""Where a run computes: device, threads and compilation, as plain data."""

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from annotated_types import Ge, Le

from rlrun.errors import UserError
from rlrun.hardware.cpu import available_cores

# Measured for PPO's 64-64 networks and minibatches of 64 on two cores: an update takes 1.7 ms
# without and 0.1 ms with the compiler, which takes most of a minute where nothing is cached.
SECONDS_SAVED_PER_UPDATE = 1.5e-3
SECONDS_TO_COMPILE = 45.0

# Compiled variants of one function that a process may hold.
MOST_VARIANTS = 10_000

# More threads than any machine has cores, and few enough that it can start them.
Threads = Annotated[int, Ge(1), Le(1024)]

A = TypeVar("A")
B = TypeVar("B")

# Starts at its first use and ends with the process.
_SECOND_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rlrun-learner")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a run may use.

    Attributes:
        device: where the learner lives: "cpu", "cuda", "cuda:1".
        threads: threads for physics; None means all cores that this process may use.
        learner_threads: threads inside one tensor operation of the learner on the CPU.
        compile: "on" and "off", or "auto": when a C++ compiler is there and the run is long
            enough to win the time back.
    """

    device: str
    threads: Threads | None
    learner_threads: Threads
    compile: Literal["auto", "off", "on"]

    def __post_init__(self):
        """Refuse what is no device."""
        if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")

    @property
    def physics_threads(self) -> int:
        """Threads that step the environments."""
        return self.threads or available_cores()

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

    def should_compile(self, updates: int) -> bool:
        """Decide whether a run of this many minibatch updates is worth compiling for."""
        if self.compile != "auto":
            return self.compile == "on"
        if torch.device(self.device).type == "cpu" and find_compiler() is None:
            return False
        return updates * SECONDS_SAVED_PER_UPDATE > SECONDS_TO_COMPILE

    def prepare(self) -> None:
        """Set the process up: threads, and a cache of compiled code that outlives the run."""
        torch.set_num_threads(self.learner_threads)
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlrun"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
        # The learner is one function, so that worker processes have nothing to share; left
        # running, they would answer the terminal's Ctrl-C with tracebacks of their own.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of tensors of fixed shapes; the first call does the work."""
        # Each setting of a sweep in one process is a variant of the same code, and torch gives
        # up after eight.
        torch._dynamo.config.recompile_limit = MOST_VARIANTS
        torch._dynamo.config.accumulated_recompile_limit = MOST_VARIANTS
        if torch.device(self.device).type == "cpu":
            # A C++ wrapper around the kernels saves the Python one's share of each call.
            options: dict[str, str | int | bool | Callable[..., Any]] = {"cpp_wrapper": True}
            return torch.compile(function, fullgraph=True, dynamic=False, options=options)
        graph = torch.compile(function, fullgraph=True, dynamic=False, mode="reduce-overhead")

        def replay(*arguments: Any) -> Any:
            # CUDA graphs write their results to fixed memory, which the next replay overwrites.
            torch.compiler.cudagraph_mark_step_begin()
            return torch.utils._pytree.tree_map(torch.clone, graph(*arguments))

        return replay

    def run_both(
        self, first: Callable[[], A], second: Callable[[], B], *, compiled: bool
    ) -> tuple[A, B]:
        """Call two independent functions, at the same time where that is faster.

        Compiled code for the CPU runs without Python's lock, which would make two threads of eager
        code slower than one. The results are those of calling one after the other.

        Args:
            first: called in this thread.
            second: called in another one, if there are several.
            compiled: whether both spend their time in compiled code.
        """
        if not compiled or self.physics_threads == 1 or torch.device(self.device).type != "cpu":
            return first(), second()
        other = _SECOND_THREAD.submit(second)
        try:
            return first(), other.result()
        finally:
            wait([other])  # also when the first one raised: nothing may go on behind one's back


def find_compiler() -> str | None:
    """Return the C++ compiler that torch.compile would call, or None."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
