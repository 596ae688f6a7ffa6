"""Ways to classify a folder that people write or find: what our speed is held against.

They know nothing of this package. Each function runs in a process of its own, with all cores, and keeps
its network for the next call. The networks have random weights: how fast they are does not hang on them.
"""

import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

CLASSES = 5
SIDE = 224
BATCH, LOADERS = 64, 2

# As the networks of torchvision want it.
TO_NETWORK = transforms.Compose(
    [
        transforms.Resize((SIDE, SIDE)),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


@lru_cache(maxsize=1)
def resnet18() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.resnet18(weights=None, num_classes=CLASSES).eval()


def save_resnet18(path: Path) -> Path:
    """Write the weights as torch keeps them."""
    torch.save(resnet18().state_dict(), path)
    return path


@torch.inference_mode()
def one_at_a_time(files: list[Path]) -> None:
    """Classify by Pillow and ResNet18 at 224 pixels, in batches of one: the seed's way."""
    for file in files:
        image = TO_NETWORK(Image.open(file).convert("RGB"))
        resnet18()(image.unsqueeze(0)).softmax(1).argmax().item()


class Files(Dataset):
    """Files as a DataLoader wants them."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> torch.Tensor:
        return TO_NETWORK(Image.open(self.files[place]).convert("RGB"))


@torch.inference_mode()
def data_loader(files: list[Path]) -> None:
    """Let two workers of a DataLoader make batches of 64 for ResNet18 at 224 pixels."""
    for images in DataLoader(Files(files), batch_size=BATCH, num_workers=LOADERS):
        resnet18()(images).softmax(1).argmax(1).tolist()


def timm_script(script: Path, tree: Path, checkpoint: Path) -> float:
    """Run timm's own inference.py over a folder tree; the seconds that it took, its start included."""
    with TemporaryDirectory() as results:
        command = [sys.executable, script, "--data-dir", tree, "--checkpoint", checkpoint]
        command += ["--model", "resnet18", "--num-classes", CLASSES, "--img-size", SIDE]
        command += ["--batch-size", BATCH, "--workers", LOADERS, "--device", "cpu"]
        command += ["--label-type", "none", "--no-console-results", "--results-dir", results]
        began = time.perf_counter()
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        taken = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
        if not any(Path(results).iterdir()):
            raise SystemExit(f"{script} wrote no results")
    return taken
