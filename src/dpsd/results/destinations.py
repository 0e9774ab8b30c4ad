"""Where an export goes, and in which format; nothing here imports anything that is slow.

>>> Destination.of("student.onnx").format, Destination.of("onnx").path.name
('onnx', 'student.onnx')
>>> Destination.of("hf:cards/digits").path.name
'digits'
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpsd.errors import ConfigError, Setting

#: The formats of a single file, which are also the suffixes of its name.
FORMATS = ("onnx", "pt2", "safetensors")
#: What stands before a folder in the form that the Hugging Face Hub has.
HUB = "hf:"
#: The files of such a folder, in the order in which they are written.
HUB_FILES = (
    *("model.safetensors", "model.pt2", "config.json", "preprocessor_config.json"),
    *("certificate.json", "README.md"),
)


@dataclass(frozen=True)
class Destination:
    """The place and the format of an export.

    Attributes:
        format: ``onnx``, ``pt2``, ``safetensors`` or ``hf``.
        path: the path of the file, or of the folder for ``hf``.
    """

    format: str
    path: Path

    @classmethod
    def of(cls, to: str | Path) -> Destination:
        """Return the destination that a user wrote.

        Args:
            to: ``onnx``, ``pt2`` or ``safetensors``, for a file ``student.`` of that format in the
                current folder; the path of a file that ends in one of these; or ``hf:FOLDER``.

        Raises:
            ConfigError: it is none of these.

        >>> Destination.of("student.pkl")
        Traceback (most recent call last):
            ...
        dpsd.errors.ConfigError: to: 'student.pkl' does not name a format; give onnx, pt2, ...
        """
        text = str(to)
        if text in FORMATS:
            return cls(text, Path(f"student.{text}"))
        if text.startswith(HUB) and text != HUB:
            return cls("hf", Path(text.removeprefix(HUB)).expanduser())
        suffix = Path(text).suffix.removeprefix(".")
        if suffix not in FORMATS:
            raise ConfigError(
                *(Setting("to"), f": {text!r} does not name a format; give "),
                f"{', '.join(FORMATS)}, a file that ends in .{', .'.join(FORMATS)}, or hf:FOLDER",
            )
        return cls(suffix, Path(text))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the export writes.

        >>> [path.name for path in Destination.of("out/student.safetensors").files]
        ['student.safetensors', 'student.json']
        """
        if self.format == "hf":
            return tuple(self.path / name for name in HUB_FILES)
        if self.format == "safetensors":
            return self.path, self.path.with_suffix(".json")
        return (self.path,)
