"""Characters of many fonts, near the middle and readable against their paper."""

from __future__ import annotations

import pytest
import torch

from dpsd.errors import ConfigError, UnknownNameError
from dpsd.synthesis.glyphs import Glyphs, _atlas


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_atlas_has_every_digit_and_letter_of_every_font() -> None:
    atlas = _atlas()
    digits, letters, others = atlas.sizes
    cells = atlas.cells(torch.arange(digits + letters + others))
    assert digits // 10 == letters // 52 > 15  # fonts
    assert digits % 10 == letters % 52 == 0
    assert (cells.amax((1, 2, 3)) == 255).all()
    # Nothing touches the border of its cell, beyond which samples are black.
    assert int(cells[..., 0].max()) + int(cells[..., 0, :].max()) < 10


def test_what_was_drawn_before_does_not_matter() -> None:
    _atlas.cache_clear()
    few = Glyphs((1, 8, 8)).pixels(5, generator=seeded())
    Glyphs((1, 8, 8)).pixels(500, generator=seeded(1))
    assert torch.equal(few, Glyphs((1, 8, 8)).pixels(5, generator=seeded()))


@pytest.mark.parametrize("side", [12, 28, 64])
def test_glyphs_lie_near_the_middle_mostly_light_on_dark(side: int) -> None:
    images = Glyphs((1, side, side)).sample(1000, generator=seeded())
    is_light = images.median(-1)[0].median(-1)[0] < 0.5
    assert 0.8 < float(is_light.float().mean()) < 0.95
    usual = images[is_light.view(-1)]
    quarter = slice(side // 4, side - side // 4)
    assert float(usual[..., 0, :].mean()) < 0.15
    assert float(usual[..., quarter, quarter].mean()) > float(usual[..., 0, :].mean()) + 0.1


def test_glyphs_in_colour_stand_out_from_their_paper() -> None:
    images = Glyphs((3, 32, 32)).sample(300, generator=seeded())
    contrast = (images.amax((2, 3)) - images.amin((2, 3))).amax(1)
    assert float(contrast.min()) > 0.2


@pytest.mark.parametrize(
    "kinds", [("letters",), ("others", "digits"), ("digits", "letters", "others")]
)
def test_only_the_wanted_kinds_of_characters_are_drawn(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = _atlas()
    asked: list[torch.Tensor] = []
    drawn = atlas.cells

    def cells(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows)
        return drawn(rows)

    monkeypatch.setattr(atlas, "cells", cells)
    Glyphs((1, 8, 8), kinds=kinds).pixels(300, generator=seeded())
    ends = torch.tensor(atlas.sizes).cumsum(0)
    of = torch.bucketize(torch.cat(asked), ends, right=True)
    counts = torch.bincount(of, minlength=3)
    assert (counts > 0).nonzero().flatten().tolist() == sorted(
        {"digits": 0, "letters": 1, "others": 2}[kind] for kind in kinds
    )
    # Each kind that is drawn is drawn equally often.
    assert int(counts[counts > 0].min()) > 0.8 * int(counts.max())


def test_all_kinds_of_characters_are_drawn_by_default() -> None:
    every = Glyphs((1, 8, 8), kinds=("others", "letters", "digits"))
    default = Glyphs((1, 8, 8)).pixels(50, generator=seeded())
    assert torch.equal(every.pixels(50, generator=seeded()), default)


def test_unknown_kinds_of_characters_and_none_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'letters'"):
        Glyphs((1, 8, 8), kinds=("leters",))
    with pytest.raises(ConfigError, match="at least one kind"):
        Glyphs((1, 8, 8), kinds=())
