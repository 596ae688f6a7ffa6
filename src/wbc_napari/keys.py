"""The keys of a review: bound to layers while it is open, napari's own given back when it closes."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wbc_napari.session import Session
from wbc_batch.schema import LABELS

__all__ = ["KEY_HELP", "LABEL_KEYS", "bind", "key_actions", "release"]

#: Key of each label a reader may give.
LABEL_KEYS = {
    **{str(n): label for n, label in enumerate(LABELS[:-1], 1)},
    "U": LABELS[-1],
}

KEY_HELP = {
    **LABEL_KEYS,
    "Space": "confirm the label",
    "→ ←": "next, previous cell",
    "Ctrl+Z": "undo",
    "Ctrl+Shift+Z": "redo",
}


def key_actions(session: "Session") -> dict[str, Callable[[], None]]:
    """Return what each key does, by its name in napari."""

    def labelled(label: str) -> Callable[[], None]:
        def act() -> None:
            if session.row >= 0:
                session.relabel([session.row], label)
                session.step(1)

        return act

    def confirm() -> None:
        if session.row >= 0:
            session.confirm([session.row])
            session.step(1)

    return {
        **{key: labelled(label) for key, label in LABEL_KEYS.items()},
        "Space": confirm,
        "Right": lambda: session.step(1),
        "Left": lambda: session.step(-1),
        "Control-Z": session.undo,
        "Control-Shift-Z": session.redo,
    }


def bind(
    layers: Iterable[Any], actions: Mapping[str, Callable[[], None]]
) -> list[tuple[Any, dict[Any, Any]]]:
    """Bind keys on layers; return what to hand to `release`."""
    bound = []
    for layer in layers:
        before = dict(layer.keymap)
        for key, action in actions.items():
            layer.bind_key(key, _pressed(action), overwrite=True)
        bound.append((layer, before))
    return bound


def release(bound: list[tuple[Any, dict[Any, Any]]]) -> None:
    """Give layers their keys back."""
    for layer, before in bound:
        layer.keymap.clear()
        layer.keymap.update(before)


def _pressed(action: Callable[[], None]) -> Callable[[Any], None]:
    return lambda _layer: action()
