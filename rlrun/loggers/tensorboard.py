"""TensorBoard (tensorboard.dev's local viewer): event files in the run directory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from rlrun.errors import UserError
from rlrun.loggers.interface import RunInfo

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


# The writer's thread waits for so long, and no thread can wait for ever so many seconds.
FlushSeconds = Annotated[int, Ge(1), Le(86_400)]


@dataclass(kw_only=True)
class TensorboardLogger:
    """Settings of the event files; conf/logger/tensorboard.yaml explains them."""

    flush_seconds: FlushSeconds

    def check(self) -> None:
        """Import the writer, which takes a second only once.

        Raises:
            UserError: the tensorboard package is not installed.
        """
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise UserError(
                "logger=tensorboard needs a package: pip install 'rlrun[tensorboard]'"
            ) from error

    def open(self, info: RunInfo, state: dict[str, Any] | None) -> "TensorboardEvents":
        """Write event files in ``info.directory / "tensorboard"``.

        Raises:
            UserError: the tensorboard package is not installed.
        """
        self.check()
        from torch.utils.tensorboard import SummaryWriter

        last_step = state["step"] if state else -1
        writer = SummaryWriter(
            str(info.directory / "tensorboard"),
            # The viewer forgets what was logged after the checkpoint that the run resumes from.
            purge_step=last_step + 1 if state else None,
            flush_secs=self.flush_seconds,
        )
        if state is None:
            # A table would need flat values; indented text shows the configuration as it is.
            text = json.dumps({**info.facts, "settings": info.config}, indent=2)
            writer.add_text("config", "\n".join("    " + line for line in text.splitlines()), 0)
        return TensorboardEvents(writer, last_step)


class TensorboardEvents:
    """Event files that are being written."""

    def __init__(self, writer: "SummaryWriter", last_step: int):
        """Wrap an open writer; ``last_step`` is the last environment step in it, -1 if none."""
        self._writer = writer
        self._last_step = last_step

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add every metric as a scalar at ``step``."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._last_step = step

    def checkpoint(self, path: Path, aliases: list[str]) -> None:
        """Nothing: TensorBoard keeps no files."""

    def picture(self, name: str, path: Path) -> None:
        """Nothing: TensorBoard draws the curves itself."""

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Add them as text, one JSON object a line."""
        lines = [f"    {json.dumps(row, ensure_ascii=False)}" for row in rows]
        self._writer.add_text("eval/samples", "\n".join(lines), step)

    def close(self, status: str, figures: dict[str, float]) -> None:
        """Flush and close."""
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """The last environment step logged."""
        return {"step": self._last_step}
