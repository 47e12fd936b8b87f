"""What a terminal shows after all that a session has written, and its picture."""

from __future__ import annotations

import io
import re
from typing import Self

from provision.core.errors import ProvisionError

_TOKEN = re.compile(
    r"\x1b\[(?P<parameters>[0-9;?]*)(?P<control>[A-Za-z])"
    r"|\x1b\](?P<told>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|(?P<character>[^\x1b])",
    re.DOTALL,
)
# Shows and hides the cursor, and brackets what is pasted: nothing of it can be seen in a picture.
_INVISIBLE = ("h", "l")
_FONT = re.compile(r"\s*@font-face \{.*?\}\n", re.DOTALL)
_FRAME = "rgba(255,255,255,0.35)"
# Black, red, green, yellow, blue, magenta, cyan and white: those of GitHub on a light page.
_LIGHT = [
    *((36, 41, 47), (207, 34, 46), (17, 99, 41), (130, 80, 0)),
    *((9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)),
]


class Screen:
    """The lines of an endless terminal: each character with the colours that it was written in."""

    def __init__(self) -> None:
        self._lines: list[list[tuple[str, str]]] = [[]]
        self._row = self._column = 0
        self._style = ""

    @classmethod
    def of(cls, written: bytes) -> Self:
        """The screen after this was written to it. Raises ProvisionError for a sequence that it does not know."""
        screen = cls()
        for token in _TOKEN.finditer(written.decode()):
            if token["control"]:
                screen._move(token["control"], token["parameters"])
            elif token["character"]:
                screen._put(token["character"])
        return screen

    def ansi(self) -> str:
        """The lines, with nothing but colours between the characters."""
        return "\n".join(map(_painted, self._lines)).rstrip()

    def text(self) -> str:
        """The lines without colours."""
        return "\n".join("".join(character for _, character in line) for line in self._lines).rstrip()

    def svg(self, title: str, scheme: str, columns: int) -> str:
        """A picture of it, in the scheme ``light`` or ``dark``. It loads nothing, so it has the reader's own font."""
        from rich.console import Console
        from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
        from rich.text import Text

        light = TerminalTheme((246, 248, 250), (36, 41, 47), _LIGHT)
        console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
        # The empty line keeps the picture from cutting off the last one.
        console.print(Text.from_ansi(self.ansi()), "", sep="\n")
        theme = light if scheme == "light" else SVG_EXPORT_THEME
        svg = console.export_svg(title=title, theme=theme, unique_id="terminal")
        return _FONT.sub("", svg).replace(_FRAME, "rgba(128,128,128,0.5)")

    def _put(self, character: str) -> None:
        if character == "\n":
            self._row += 1
            if self._row == len(self._lines):
                self._lines.append([])
        elif character == "\r":
            self._column = 0
        elif character >= " ":
            line = self._lines[self._row]
            line.extend([("", " ")] * (self._column - len(line)))
            line[self._column : self._column + 1] = [(self._style, character)]
            self._column += 1

    def _move(self, control: str, parameters: str) -> None:
        if control == "m":
            self._style = "" if parameters in ("", "0") else f"{self._style}\x1b[{parameters}m"
        elif control == "A":
            self._row = max(0, self._row - int(parameters or 1))
        elif control == "J" and parameters in ("", "0"):
            del self._lines[self._row][self._column :]
            del self._lines[self._row + 1 :]
        elif control == "K":
            del self._lines[self._row][0 if parameters == "2" else self._column :]
        elif control not in _INVISIBLE:
            raise ProvisionError(
                "taking pictures of the terminal",
                f"A command wrote ESC [ {parameters}{control}, which the pictures don't know.",
                "Add it to tools/terminal/screen.py.",
            )


def _painted(line: list[tuple[str, str]]) -> str:
    text, before = "", ""
    for style, character in line:
        if style != before:
            text += f"\x1b[0m{style}"
        before = style
        text += character
    return f"{text}\x1b[0m" if before else text
