"""Output to terminals and files whose encoding lacks some of dpsd's signs.

A redirected output has the encoding of the system's locale, which may be ASCII, Latin-1 or a
Windows code page, and none of these can say ε. Python would end the command with an exception,
after all of its work. Here, a sign that an output's encoding lacks is spelled in ASCII instead.

>>> "ε = 1 at δ = 1e-05 – a “student’s” share".encode("ascii", SPELLED).decode()
'eps = 1 at delta = 1e-05 - a "student\\'s" share'
>>> "×, ε".encode("latin-1", SPELLED).decode("latin-1")
'×, eps'
>>> "\\u4e2d".encode("ascii", SPELLED)
b'\\\\u4e2d'
"""

from __future__ import annotations

import codecs
from typing import IO, Any

#: The name of the error handler that spells signs in ASCII.
SPELLED = "dpsd.spelled"
#: The name of one for text that is laid out already, where a cell that was cut off ends in an
#: ellipsis: that becomes a full stop, which is as long.
_LAID_OUT = "dpsd.spelled.laid-out"

#: The signs that dpsd's own output may contain, in ASCII. Signs of box drawing have one character,
#: so that lines stay as long as they were.
_SPELLINGS = str.maketrans(
    {
        **{"ε": "eps", "δ": "delta", "σ": "sigma", "λ": "lambda", "α": "alpha", "β": "beta"},
        **{"×": "x", "·": "*", "−": "-", "±": "+/-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~"},
        **{"∞": "inf", "√": "sqrt", "→": "->", "←": "<-", "∝": "~", "∈": "in", "‖": "||"},
        **{"–": "-", "—": "-", "‐": "-", "‑": "-", "…": "...", "•": "*"},
        **{"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'},
        **dict.fromkeys("\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}", " "),
    }
)
#: The signs of box drawing that become dashes and bars; the others become plus signs.
_HORIZONTAL = "─━┄┅┈┉╌╍═╴╶╸╺╼╾"
_VERTICAL = "│┃┆┇┊┋╎╏║╵╷╹╻╽╿"


def spelled(text: str, encoding: str) -> str:
    """Return text as an output of an encoding shows it.

    Args:
        text: any text.
        encoding: the name of a codec, such as ``"cp1252"``.

    >>> spelled("naïve ε", "cp1252")
    'naïve eps'
    """
    return text.encode(encoding, SPELLED).decode(encoding)


def can_say_all(stream: IO[str]) -> bool:
    """Return whether a stream's encoding has every sign.

    >>> import io
    >>> can_say_all(io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    False
    """
    encoding = getattr(stream, "encoding", None)
    return not encoding or codecs.lookup(encoding).name.startswith(("utf-", "utf_"))


def settle(*streams: Any) -> None:
    """Let streams spell what their encoding lacks, and never raise ``UnicodeEncodeError``.

    Args:
        streams: the text streams to settle. A stream that cannot be reconfigured, as it is not a
            file, is left as it is: it takes any text. ``None`` stands for a stream that is closed.
    """
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_LAID_OUT)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell the part of a text that could not be encoded; an error handler of :mod:`codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_in_ascii, lacking)), error.end


def _spell_in_place(error: UnicodeError) -> tuple[str, int]:
    said, end = _spell(error)
    return said.replace("...", "."), end


def _in_ascii(sign: str) -> str:
    known = sign.translate(_SPELLINGS)
    if known.isascii():
        return known
    if "\u2500" <= sign <= "\u257f":  # box drawing
        return "-" if sign in _HORIZONTAL else "|" if sign in _VERTICAL else "+"
    if "\u2800" <= sign <= "\u28ff":  # the dots of a spinner
        return "*"
    # Other signs are in names and paths, whose letters are not to be replaced by similar ones.
    return sign.encode("ascii", "backslashreplace").decode()


codecs.register_error(SPELLED, _spell)
codecs.register_error(_LAID_OUT, _spell_in_place)
