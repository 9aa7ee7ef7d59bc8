"""The README's tables, and a picture of them, made from the saved result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MARKED = re.compile(r"(<!-- peers: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "mobilenet_v3_large": "MobileNetV3-Large",
}
SHOWN = "2 threads"  # the setting of what is shown whole
OURS, LIBRARY = "map", "pytorch-grad-cam"
SAME_IMAGE = 0.999  # correlation: those who treat every kind of rectifier differ by rounding alone
_COLOURS = {
    "plain": "#b0b0b0",
    OURS: "#2a7f62",
    "PyTorch by hand": "#e0b050",
    "Captum LayerGradCam": "#d98032",
    LIBRARY: "#b8403a",
}
_LABELS = {"plain": "plain network", OURS: "gcpp-edge", "Captum LayerGradCam": "Captum (Grad-CAM)"}


def with_tables(page: str, result: dict[str, Any]) -> str:
    """The page with what stands between its marks written anew."""
    made = {"maps": map_table, "guided": guided_table}
    return MARKED.sub(lambda match: f"{match[1]}{made[match[2]](result)}\n{match[3]}", page)


def map_table(result: dict[str, Any]) -> str:
    """Our milliseconds, and how many times as long the others take; the library in every setting."""
    settings = list(next(iter(result["networks"].values())))
    head = ["network", "plain network", "gcpp-edge", "/ plain", "PyTorch by hand", "Captum, Grad-CAM"]
    head += [f"pytorch-grad-cam, {setting}" for setting in settings]
    rows = []
    for name, found in result["networks"].items():
        ms = found[SHOWN]["ms"]
        row = [NAMES[name], f"{ms['plain']:.1f} ms", f"{ms[OURS]:.1f} ms", f"{ms[OURS] / ms['plain']:.2f}"]
        row += [_times(ms, peer, OURS) for peer in ("PyTorch by hand", "Captum LayerGradCam")]
        for setting in settings:
            row.append(_times(found[setting]["ms"], LIBRARY, OURS) if setting in found else "–")
        rows.append(row)
    return _table(head, rows)


def guided_table(result: dict[str, Any]) -> str:
    """The same of Guided Grad-CAM; nothing for those who compute another image."""
    rows = []
    for name, found in result["networks"].items():
        ms, agreement = found[SHOWN]["ms"], found[SHOWN]["agreement"]
        row = [NAMES[name], f"{ms['guided']:.1f} ms", f"{ms['guided'] / ms['plain']:.2f}"]
        pairs = (
            ("Captum GuidedGradCam", "Captum GuidedBackprop"),
            ("pytorch-grad-cam guided", "pytorch-grad-cam guided"),
        )
        for timed, compared in pairs:
            is_same = agreement[compared]["correlation"] >= SAME_IMAGE
            row.append(_times(ms, timed, "guided") if is_same else "another image")
        rows.append(row)
    return _table(["network", "gcpp-edge, guided", "/ plain", "Captum, GuidedGradCam", "pytorch-grad-cam"], rows)


def _times(ms: dict[str, float], peer: str, ours: str) -> str:
    return f"{ms[peer]:.0f} ms, {ms[peer] / ms[ours]:.1f} ×"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars of milliseconds a frame, by network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    networks = result["networks"]
    figure, axes = plt.subplots(1, len(networks), figsize=(3 * len(networks), 2.6), squeeze=False)
    for plot, (name, found) in zip(axes[0], networks.items(), strict=True):
        ms = [found[SHOWN]["ms"][row] for row in _COLOURS]
        bars = plot.barh([_LABELS.get(row, row) for row in _COLOURS], ms, color=list(_COLOURS.values()))
        plot.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        plot.set_xlim(0, 1.2 * max(ms))
        plot.set_title(NAMES[name], fontsize=11)
        plot.set_xlabel("ms a frame")
        plot.invert_yaxis()
        plot.spines[["top", "right"]].set_visible(False)
        if plot is not axes[0][0]:
            plot.set_yticklabels([])
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
