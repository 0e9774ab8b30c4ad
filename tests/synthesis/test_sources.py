"""Public sources of queries: in range, varied, reproducible, and fitted to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from dpsd.config.recipe import Recipe
from dpsd.errors import ConfigError, DataError, UnknownNameError
from dpsd.images.pixels import to_pixels, to_unit_range
from dpsd.synthesis.blending import Mixed
from dpsd.synthesis.distinct import image_digests
from dpsd.synthesis.drawn import Silhouettes, Strokes, StructuredNoise
from dpsd.synthesis.glyphs import Glyphs
from dpsd.synthesis.leaves import Leaves
from dpsd.synthesis.mixture import SOURCES, Mixture, apportion, build_mixture
from dpsd.synthesis.names import check_sources
from dpsd.synthesis.photographs import Crops, Folder
from dpsd.synthesis.public import Public
from dpsd.synthesis.sources import CHUNK, Source, is_blank

SHAPES = [
    ((1, 8, 8), 40),
    ((1, 28, 28), 40),
    ((3, 32, 32), 40),
    ((3, 24, 40), 40),
    ((3, 224, 224), 4),
]
MakeSource = Callable[[tuple[int, int, int]], Source]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_photographs(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for number, (size, mode) in enumerate([((40, 30), 3), ((64, 64), 3), ((20, 50), 1)]):
        pixels = random.integers(0, 256 >> number, (*size, mode), dtype=np.uint8).squeeze()
        place = folder / f"folder-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"photograph-{number}.png")
    return folder


def make_mixed(shape: tuple[int, int, int]) -> Source:
    return Mixed(shape, [Strokes(shape), Leaves(shape), Glyphs(shape)])


def make_public(shape: tuple[int, int, int]) -> Source:
    return Public(Silhouettes(shape).pixels(60, generator=seeded(9)))


#: Every source that needs no file.
EVERY = [*SOURCES.values(), make_mixed, make_public]


@pytest.fixture(params=[*SOURCES, "mixed", "public", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeSource:
    if request.param == "folder":
        folder = write_photographs(tmp_path / "public")
        return lambda shape: Folder(shape, folder)
    made: dict[str, MakeSource] = {"mixed": make_mixed, "public": make_public}
    return made.get(request.param) or SOURCES[request.param]


@pytest.mark.parametrize(("shape", "count"), SHAPES)
def test_images_are_in_range_and_varied(
    make: MakeSource, shape: tuple[int, int, int], count: int
) -> None:
    images = make(shape).sample(count, generator=seeded())
    assert images.shape == (count, *shape)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    flat = images.flatten(1)
    assert len(flat.unique(dim=0)) > count / 2  # one from the other
    assert float((flat.std(1) > 0.01).float().mean()) > 0.7  # and inside each
    assert float(flat.mean(1).std()) > 0.005


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_seeds_decide_and_nothing_else(make: MakeSource, shape: tuple[int, int, int]) -> None:
    source = make(shape)
    before = torch.get_rng_state()
    images = source.sample(12, generator=seeded(1))
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(99)
    assert make(shape).sample(12, generator=seeded(1)).equal(images)
    assert not source.sample(12, generator=seeded(2)).equal(images)


@pytest.mark.parametrize("count", [0, 1, CHUNK + 3])
def test_any_count(make: MakeSource, count: int) -> None:
    assert make((1, 8, 8)).sample(count, generator=seeded()).shape == (count, 1, 8, 8)


def frame_and_centre(images: Tensor) -> tuple[float, float]:
    """Mean brightness of the outermost pixels, and of the middle quarter."""
    side = images.shape[-1]
    frame = torch.ones((side, side), dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    quarter = slice(side // 4, side - side // 4)
    return float(images[..., frame].mean()), float(images[..., quarter, quarter].mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_islands_lie_on_a_plain_dark_ground(shape: tuple[int, int, int]) -> None:
    def drawn(islands: float) -> Tensor:
        source = StructuredNoise(shape, strokes=0.0, islands=islands)
        return source.sample(2 * CHUNK, generator=seeded())

    frame, centre = frame_and_centre(drawn(1.0))
    assert frame < 0.15
    assert centre > frame + 0.3
    frame, centre = frame_and_centre(drawn(0.0))
    assert abs(centre - frame) < 0.05


def test_colours_are_colours(make: MakeSource) -> None:
    images = make((3, 16, 16)).sample(64, generator=seeded())
    assert float((images[:, 0] - images[:, 1]).abs().mean()) > 0.01


def test_noise_has_blobs_and_strokes() -> None:
    blobs = StructuredNoise((1, 28, 28), strokes=0.0).sample(200, generator=seeded())
    strokes = StructuredNoise((1, 28, 28), strokes=1.0).sample(200, generator=seeded())
    assert not blobs.equal(strokes)
    assert float(strokes.mean()) < float(blobs.mean()) + 0.2


def test_silhouettes_stand_on_black() -> None:
    images = Silhouettes((1, 28, 28)).sample(200, generator=seeded())
    border = torch.cat([images[..., 0, :], images[..., -1, :]], dim=-1)
    assert float(border.mean()) < float(images.mean())
    assert float((images < 0.05).float().mean()) > 0.2


@pytest.mark.parametrize("side", [8, 28, 64])
def test_strokes_are_lines_near_the_middle(side: int) -> None:
    images = Strokes((1, side, side)).sample(500, generator=seeded())
    frame, centre = frame_and_centre(images)
    assert frame < 0.15
    assert centre > frame + 0.1
    ink = images.mean((1, 2, 3))
    # Each has a line, and no line fills the picture.
    assert float(ink.min()) > 0.01
    assert float(ink.max()) < 0.7
    assert float(images.amax((1, 2, 3)).min()) > 0.5


def most_frequent(pixels: Tensor) -> int:
    """How often the image comes that comes most often."""
    return int(pixels.flatten(1).unique(dim=0, return_counts=True)[1].max())


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 8, 8), pytest.param((1, 28, 28), marks=pytest.mark.thorough)]
)
def test_no_image_comes_in_bulk_among_default_queries(shape: tuple[int, int, int]) -> None:
    pixels, _ = build_mixture(Recipe().sources, shape).sample(40_000, generator=seeded())
    assert most_frequent(pixels) <= 5  # at 8x8 some are all black but for a pixel


@pytest.mark.parametrize("source", EVERY)
@pytest.mark.parametrize(
    ("shape", "repeated"), [((1, 8, 8), 0.005), ((3, 8, 8), 0.005), ((1, 28, 28), 0.001)]
)
def test_no_source_makes_an_image_in_bulk_or_a_blank_one(
    source: MakeSource, shape: tuple[int, int, int], repeated: float
) -> None:
    pixels = source(shape).pixels(4_000, generator=seeded())
    assert most_frequent(pixels) <= 3
    assert 1 - len(image_digests(pixels).unique()) / len(pixels) < repeated
    assert not is_blank(to_unit_range(pixels)).any()


@settings(max_examples=40, deadline=None)
@given(
    source=st.sampled_from(EVERY),
    shape=st.tuples(st.integers(1, 4), st.integers(8, 40), st.integers(8, 40)),
    count=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_images_of_any_shape_show_something_and_follow_the_generator(
    source: MakeSource, shape: tuple[int, int, int], count: int, seed: int
) -> None:
    images = source(shape).sample(count, generator=seeded(seed))
    assert images.shape == (count, *shape)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert not is_blank(images).any()
    assert source(shape).sample(count, generator=seeded(seed)).equal(images)
    assert source(shape).pixels(count, generator=seeded(seed)).equal(to_pixels(images))


@pytest.mark.parametrize(
    ("source", "mending"),
    [(StructuredNoise, "dpsd.synthesis.drawn"), (Crops, "dpsd.synthesis.sources")],
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_blank_images_are_made_visible_and_no_other_is_changed(
    source: MakeSource,
    mending: str,
    shape: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mended = source(shape).pixels(6_000, generator=seeded()).flatten(1)
    with monkeypatch.context() as patch:
        patch.setattr(
            f"{mending}.is_blank",
            lambda images: torch.zeros(len(images), dtype=torch.bool),
        )
        plain = source(shape).pixels(6_000, generator=seeded()).flatten(1)
    blank = (plain.amax(1) == 0) | (plain.amin(1) == 255)
    assert blank.any()
    assert mended[~blank].equal(plain[~blank])
    seen = mended[blank]
    assert ((seen.amax(1) > 0) & (seen.amin(1) < 255)).all()
    if source is StructuredNoise:
        assert (seen.amax(1) - seen.amin(1) > 30).all()


def test_a_tenth_of_the_crops_in_colour_are_grey() -> None:
    images = Crops((3, 16, 16)).sample(2000, generator=seeded())
    is_grey = (images.amax(1) - images.amin(1)).amax((1, 2)) < 1e-3
    assert 0.07 < float(is_grey.float().mean()) < 0.14


def test_some_crops_are_turned_by_any_angle() -> None:
    """Of a photograph that is dark to the left, most crops are darker to one of the sides."""
    bright = torch.linspace(0, 1, 64).expand(1, 64, 64).clone()
    images = Crops((1, 16, 16), photographs=[bright]).sample(4000, generator=seeded())
    down = (images[..., -1, :] - images[..., 0, :]).mean((1, 2))
    across = (images[..., -1] - images[..., 0]).mean((1, 2))
    upright = down.abs() > 3 * across.abs()
    assert 0.02 < float(upright.float().mean()) < 0.15


def test_crops_of_ones_own_photographs() -> None:
    red = torch.zeros(3, 30, 30)
    red[0] = 1.0
    images = Crops((3, 16, 16), photographs=[red]).sample(64, generator=seeded())
    channels = images.mean((2, 3))
    usual = channels[:, 0] > channels[:, 1]
    assert 0.6 < float(usual.float().mean()) < 0.99  # a fifth of the crops are inverted


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(5, 9), (200, 100)])
def test_photographs_of_any_size_and_depth(channels: int, size: tuple[int, int]) -> None:
    photograph = torch.rand((channels, *size), generator=seeded())
    for shape in ((1, 16, 16), (3, 16, 16)):
        images = Crops(shape, photographs=[photograph]).sample(8, generator=seeded())
        assert images.shape == (8, *shape)
        assert images.isfinite().all()


def test_folder_is_searched_through(tmp_path: Path) -> None:
    for number, gray in enumerate([10, 200]):
        place = tmp_path / f"level-{number}" / "deeper"
        place.mkdir(parents=True)
        Image.fromarray(np.full((12, 12), gray, dtype=np.uint8)).save(place / "image.PNG")
    (tmp_path / "readme.txt").write_text("no image")
    images = Folder((1, 8, 8), tmp_path).sample(50, generator=seeded())
    assert {round(float(value) * 255) for value in images.unique()} == {10, 200}


def test_folder_scales_and_crops_to_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((16, 48), dtype=np.uint8)
    pixels[:, 16:32] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    images = Folder((1, 8, 8), tmp_path).sample(4, generator=seeded())
    assert float(images.mean()) > 0.8


def test_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        Folder((1, 8, 8), tmp_path / "nowhere")


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(DataError, match="no image"):
        Folder((1, 8, 8), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_folder_with_a_bad_file_names_it(tmp_path: Path, content: bytes) -> None:
    write_photographs(tmp_path)
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"public images: .*bad\.png is not a readable image"):
        Folder((1, 8, 8), tmp_path)


def test_folder_with_a_truncated_image_names_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png is not a readable image"):
        Folder((1, 8, 8), tmp_path)


def test_folder_for_other_channels(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    with pytest.raises(ConfigError, match="1 or 3 channels, not 4"):
        Folder((4, 8, 8), tmp_path)


@given(
    st.integers(0, 100_000),
    st.lists(st.floats(0.001, 1), min_size=1, max_size=8),
)
def test_apportioned_numbers_are_fair(count: int, weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    parts = apportion(count, shares)
    assert sum(parts) == count
    assert all(
        part >= 0 and abs(part - share * count) <= 1.001
        for part, share in zip(parts, shares, strict=True)
    )


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 28, 28), 256), ((3, 64, 64), 256), ((3, 224, 224), 20)]
)
def test_large_images_are_made_fewer_at_a_time(shape: tuple[int, int, int], size: int) -> None:
    class Counted(Plain):
        def _chunk(self, count: int, generator: torch.Generator) -> torch.Tensor:
            counts.append(count)
            return super()._chunk(count, generator)

    counts: list[int] = []
    source = Counted(0.5)
    source.shape = shape
    assert len(source.pixels(2 * size + 1, generator=seeded())) == 2 * size + 1
    assert counts == [size, size, 1]


@pytest.mark.parametrize("count", [0, 1, 5000, 9000])
def test_blocks_are_the_sample_in_pieces(count: int) -> None:
    mixture = build_mixture(["noise", "crops"], (1, 8, 8))
    images, source = mixture.sample(count, generator=seeded())
    blocks = list(mixture.blocks(count, generator=seeded()))
    assert all(0 < len(block) <= 16 * CHUNK for block, _ in blocks)
    assert torch.cat([images[:0], *(block for block, _ in blocks)]).equal(images)
    numbers = [number for block, number in blocks for _ in range(len(block))]
    assert source.tolist() == numbers


class Plain(Source):
    """Images of one grey."""

    name = "plain"

    def __init__(self, gray: float) -> None:
        super().__init__((1, 8, 8))
        self.gray = gray

    def _chunk(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.full((count, *self.shape), self.gray)


def test_a_mixture_keeps_its_shares_and_says_who_made_what() -> None:
    mixture = Mixture([Plain(0.0), Plain(0.2), Plain(1.0)], [2, 1, 1])
    images, source = mixture.sample(40, generator=seeded())
    assert images.dtype == torch.uint8
    assert torch.bincount(source).tolist() == [20, 10, 10]
    assert images[:, 0, 0, 0].tolist() == [[0, 51, 255][number] for number in source.tolist()]


def test_shares_sum_to_one() -> None:
    sources = [Plain(0.1), Plain(0.2)]
    assert Mixture(sources).shares == [0.5, 0.5]
    assert Mixture(sources, [3, 1]).shares == [0.75, 0.25]


def test_no_source_stands_alone() -> None:
    assert build_mixture(["none"], (1, 8, 8)).sources == []
    with pytest.raises(ConfigError, match="'none' must stand alone, not in noise,none"):
        build_mixture(["noise", "none"], (1, 8, 8))


@pytest.mark.parametrize("names", [["mixed"], ["mixed", "mixed"], ["diffusion", "mixed"]])
def test_mixed_images_need_another_source(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="name another, as in noise,mixed"):
        build_mixture(names, (1, 8, 8))


def test_mixed_images_are_of_all_the_other_sources_and_have_a_share_of_their_own() -> None:
    mixture = build_mixture(["mixed", "noise", "strokes"], (1, 8, 8))
    assert [source.name for source in mixture.sources] == ["mixed", "noise", "strokes"]
    mixed = mixture.sources[0]
    assert isinstance(mixed, Mixed)
    assert mixed.sources == mixture.sources[1:]
    _, numbers = mixture.sample(30, generator=seeded())
    assert torch.bincount(numbers).tolist() == [10, 10, 10]
    adapted = mixture.adapted({0: 0.8, 1: 0.2, 2: 0.2}, {0: 0.5, 1: 0.5, 2: 0.5})
    assert adapted.shares[0] > 1 / 3


@pytest.mark.parametrize(
    ("names", "basis"),
    [
        (["diffusion"], [name for name in Recipe().sources if name != "mixed"]),
        (["noise", "diffusion", "strokes"], ["noise", "strokes"]),
        (["diffusion", "mixed", "noise"], ["noise", "mixed"]),
    ],
)
@pytest.mark.parametrize("public", [None, torch.zeros((1, 1, 8, 8), dtype=torch.uint8)])
def test_diffusion_learns_from_all_other_sources_and_keeps_its_place(
    names: list[str], basis: list[str], public: Tensor | None
) -> None:
    given: list[Mixture] = []

    def diffusion(others: Mixture) -> Source:
        given.append(others)
        return Plain(0.5)

    mixture = build_mixture(names, (1, 8, 8), public=public, diffusion=diffusion)
    beside = [] if public is None else ["public"]
    if names == ["diffusion"] and beside:
        basis = []  # public images are something to learn from
    assert sorted(source.name for source in given[0].sources) == sorted(basis + beside)
    named = ["plain" if name == "diffusion" else name for name in names]
    assert [source.name for source in mixture.sources] == named + beside
    mixed = [source for source in mixture.sources if isinstance(source, Mixed)]
    assert all(not isinstance(one, Plain) for source in mixed for one in source.sources)


def test_diffusion_needs_somebody_who_trains_it() -> None:
    with pytest.raises(ValueError, match="'diffusion' is trained: say what makes it"):
        build_mixture(["noise", "diffusion"], (1, 8, 8))


def test_public_images_get_half_of_the_mixture_and_are_blended_with_the_rest() -> None:
    grey = torch.full((4, 1, 8, 8), 100, dtype=torch.uint8)
    mixture = build_mixture(["noise", "crops", "mixed"], (1, 8, 8), public=grey)
    assert [source.name for source in mixture.sources] == ["noise", "crops", "mixed", "public"]
    assert mixture.shares == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    mixed = mixture.sources[2]
    assert isinstance(mixed, Mixed)
    assert [source.name for source in mixed.sources] == ["noise", "crops", "public"]
    alone = build_mixture(["none"], (1, 8, 8), public=grey)
    assert alone.shares == [1.0]


def test_shares_follow_surprise_and_spread() -> None:
    mixture = Mixture([Plain(0.1), Plain(0.2)])
    surprising = mixture.adapted({0: 0.8, 1: 0.2}, {0: 0.5, 1: 0.5})
    assert surprising.shares == pytest.approx([0.65, 0.35])
    spread = mixture.adapted({0: 0.5, 1: 0.5}, {0: 0.1, 1: 0.9})
    assert spread.shares == pytest.approx([0.3, 0.7])
    assert mixture.shares == [0.5, 0.5]


def test_no_source_is_given_up() -> None:
    mixture = Mixture([Plain(0.1), Plain(0.2)])
    for _ in range(50):
        mixture = mixture.adapted({0: 0.0, 1: 1.0}, {0: 1.0, 1: 1.0})
    assert 0.04 < mixture.shares[0] < 0.06
    assert sum(mixture.shares) == pytest.approx(1)
    for _ in range(50):
        mixture = mixture.adapted({0: 1.0, 1: 0.0}, {0: 1.0, 1: 1.0})
    assert mixture.shares[0] > 0.9


def test_silent_releases_change_nothing() -> None:
    mixture = Mixture([Plain(0.1), Plain(0.2)], [3, 1])
    assert mixture.adapted({0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}).shares == mixture.shares


def test_sources_by_name(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    mixture = build_mixture(["noise", "strokes", "crops", f"folder:{tmp_path}"], (1, 8, 8))
    assert [source.name for source in mixture.sources] == [
        "noise",
        "strokes",
        "crops",
        "folder",
    ]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("nois", "noise"), ("stroke", "strokes"), ("croops", "crops"), ("noise:x", "noise")],
)
def test_an_unknown_source_suggests_the_nearest(name: str, suggested: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{suggested}'"):
        build_mixture([name], (1, 8, 8))


@pytest.mark.parametrize("name", ["folder", "folder:"])
def test_a_folder_needs_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="say which folder"):
        build_mixture([name], (1, 8, 8))


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_a_mixture_makes_as_many_as_wanted_however_few(count: int) -> None:
    mixture = build_mixture(["noise", "crops"], (1, 8, 8))
    images, source = mixture.sample(count, generator=torch.Generator().manual_seed(0))
    assert images.shape == (count, 1, 8, 8)
    assert source.shape == (count,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../covid", "write folder:../covid for a folder of public images, or give it with public"),
        ("public", "leave 'public' out, as public adds the images that it names"),
    ],
)
def test_what_is_named_in_the_wrong_way_is_told_the_right_one(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_sources(["noise", name])
