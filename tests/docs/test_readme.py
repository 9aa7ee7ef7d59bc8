"""The README's examples run, in order, on a real network and real pictures; and what it links to is there."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
NOT_RUN = re.compile(r"<!-- not run: \S.*-->\s*$")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNERS = ("sh", "python")

for package in ("torch", "torchvision", "skimage", "efficientnet_lite_pytorch", "cv2", "typer", "onnxruntime"):
    if find_spec(package) is None:
        pytest.skip(f"the README's examples need {package}: make test installs it", allow_module_level=True)


class Example(NamedTuple):
    """A fenced block: its language, its text, and the line that it starts at."""

    language: str
    text: str
    line: int


def examples(markdown: str) -> list[Example]:
    """Every fenced block but those that say why they are not run."""
    found = []
    for match in BLOCK.finditer(markdown):
        before = markdown[: match.start()]
        if not NOT_RUN.search(before):
            found.append(Example(match[1], match[2], before.count("\n") + 2))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples take as given: cat.jpg, photos/, clip.mp4, resnet18.pth and network.onnx."""
    folder = tmp_path_factory.mktemp("readme")
    save_pictures(folder)
    save_networks(folder)
    return folder


def save_pictures(folder: Path) -> None:
    import cv2

    skimage = find_spec("skimage")
    assert skimage is not None and skimage.origin is not None
    pictures = Path(skimage.origin).parent / "data"
    cv2.imwrite(str(folder / "cat.jpg"), cv2.imread(str(pictures / "chelsea.png")))
    (folder / "photos").mkdir()
    shutil.copy(pictures / "coffee.png", folder / "photos")
    cat = cv2.imread(str(folder / "cat.jpg"))
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (400, 296))
    for left in range(0, 50, 2):
        clip.write(cat[:296, left : left + 400])
    clip.release()


def save_networks(folder: Path) -> None:
    """Weights as a user has them, and a network that somebody else exported."""
    import torch

    from gcpp_edge.export import from_torch

    torchvision = from_torch.import_torchvision()
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    torch.save(network.state_dict(), folder / "resnet18.pth")
    program = torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), dynamo=True, verbose=False)
    program.save(folder / "network.onnx")


def run_shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", text]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )


def run_python(example: Example, namespace: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile("\n" * (example.line - 1) + example.text, str(README), "exec"), namespace)


@pytest.mark.slow
def test_every_example_runs_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {}
    for example in examples(README.read_text(encoding="utf-8")):
        if example.language == "sh":
            done = run_shell(example.text, folder)
            assert done.returncode == 0, f"README.md line {example.line}:\n{example.text}\n{done.stdout}\n{done.stderr}"
        else:
            run_python(example, namespace, folder, monkeypatch)
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "cat.overlay.png",
        "cat.panel.png",
        "coffee.overlay.png",
        "coffee.panel.png",
    ]
    assert len((folder / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 25 and (folder / "out.mkv").exists()
    assert namespace["explanation"].label in ("tiger cat", "Egyptian cat", "tabby, tabby cat", "tabby")
    assert namespace["cat"].label == "Egyptian cat"
    assert (namespace["overlay"] != namespace["frame"]).any()


def test_every_block_is_run_or_says_why_not() -> None:
    text = README.read_text(encoding="utf-8")
    found = examples(text)
    assert {example.language for example in found} == set(RUNNERS), "only sh and python blocks can be run"
    assert len(found) >= 6
    assert len(BLOCK.findall(text)) == len(found) + len(re.findall(r"<!-- not run: ", text))


def test_an_example_that_fails_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = examples(
        "```sh\ngcpp-edge explain nope.onnx cat.jpg\n```\n\n```python\nimport gcpp_edge\ngcpp_edge.nope\n```\n"
    )
    assert [example.language for example in broken] == ["sh", "python"]
    assert run_shell(broken[0].text, folder).returncode == 2
    with pytest.raises(AttributeError, match="nope"):
        run_python(broken[1], {}, folder, monkeypatch)


PAGES = ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/method.md", "docs/jetson.md", "docs/live.md"]
PAGES += [f"examples/{name}/README.md" for name in ("c", "cpp", "ros2")]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []
