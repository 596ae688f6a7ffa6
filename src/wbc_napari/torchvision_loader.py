"""Load torchvision without what crashes a process that has a window.

It decodes images and has the networks of imported models. It imports torch's compiler, that imports Triton,
and that brings an LLVM of its own: on Linux this ends the process where Mesa has drawn with its LLVM before
(seen with llvmpipe). What the plugin does needs no Triton.
"""

import sys

__all__ = ["load_torchvision"]


def load_torchvision() -> None:
    """Import torchvision, if that has not been done, as where Triton is not installed."""
    if "torchvision" in sys.modules or "triton" in sys.modules or sys.platform != "linux":
        return
    # None makes an import fail as if it were not installed; the type of sys.modules does not know that.
    sys.modules["triton"] = None  # type: ignore[assignment]
    try:
        import torchvision  # noqa: F401
    except ImportError:  # then Pillow decodes
        pass
    finally:
        del sys.modules["triton"]
