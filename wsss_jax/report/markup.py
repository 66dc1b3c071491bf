"""HTML that is escaped unless it was built here."""

import html
import json
from collections.abc import Iterable
from typing import Any

_VOID = frozenset({"br", "hr", "img", "meta"})


class Html(str):
    """Text that is markup already; a plain ``str`` is escaped wherever it is put into a page."""

    __slots__ = ()


def element(tag: str, /, *children: Any, **attributes: Any) -> Html:
    """``<tag …>children</tag>``.

    Args:
      tag: the element's name.
      children: markup, text or numbers (escaped), None (left out), or iterables of these.
      attributes: ``class_`` is written ``class``, ``data_id`` ``data-id``; None and False leave the
        attribute out, True gives it no value, a dict or list becomes JSON.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Html:
    """The children one after another, escaped where they are not markup."""
    return Html("".join(_child(child) for child in children))


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int | float):
        return html.escape(str(child))
    return join(child)


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if isinstance(value, dict | list):
        value = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f' {name}="{html.escape(str(value))}"'
