"""The picture of a prediction: its error against the episodes it has seen."""

from pathlib import Path

import numpy as np

from rlrun.runs.files.disk import replacing
from rlrun.runs.reports.curves import columns

# What a method that predicts says at an episode's end.
ERROR = "value/rms_error"


def draw_prediction(metrics: list[dict[str, float]], path: Path, title: str) -> None:
    """Draw the error of V against episodes, both on logarithmic axes, as a PNG.

    Args:
        metrics: rows of ``metrics.jsonl``, some of them with ``value/rms_error``.
        path: the PNG to write.
        title: what the run is.
    """
    # matplotlib takes long to import. Its pyplot interface is global and not for threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    error, episodes = columns(metrics, [ERROR, "train/episodes"])
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots()
    axes.loglog(np.cumsum(episodes), error, color="#08519c")
    axes.set(xlabel="episodes", ylabel="root mean square of V − V^π over the states")
    axes.grid(alpha=0.3, which="both")
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)
