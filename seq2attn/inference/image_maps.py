"""The maps of a network for one image: of its blocks, pooling and self-attention, rollout and Grad-CAM; and
pictures of those that are chosen.

Letters: C channels, H x W the grid, N = H W its positions, h heads.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seq2attn.attention.blocks import BLOCKS, Block, Map
from seq2attn.attention.blocks.looks import on_grid, rows
from seq2attn.attention.memory import Grid
from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import Pixels
from seq2attn.inference.activations import recorded
from seq2attn.inference.attention_maps import chosen
from seq2attn.inference.image_input import ReadImage
from seq2attn.inference.predictor import DEFAULT_PLOT, MAPS, PlotOptions
from seq2attn.inference.viewing import map_of_image
from seq2attn.layers.convolution import Blocks
from seq2attn.models.encoders import EncoderLayer
from seq2attn.models.tagger_layers import AttentivePooling, PlainPooling
from seq2attn.models.vision.backbone import Features
from seq2attn.models.vision.classifier import ImageClassifier, ImageScores
from seq2attn.models.vision.vit import ViT
from seq2attn.views.viewer import Entry, Output, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.views.image_maps import Panel

_CHOICES = {"affinity": "affinity", "channel": "channel", "channels": "channel", "branch": "channel"}
R = TypeVar("R")
_DIGITS = 6  # of numbers in JSON


class ImageMap(NamedTuple):
    """A map of one image, and where it comes from."""

    name: str  # "stage 1, unit 2, residual, cbam: place"
    path: str  # of the module in the network
    choice: str  # one of MAPS
    map: Map  # of a batch of one


class Seen(NamedTuple):
    """The maps of an image, and the output of the network for it."""

    maps: list[ImageMap]
    output: ImageScores


def image_maps(model: ImageClassifier, images: Float[Tensor, "1 C H W"], label: int | None = None) -> Seen:
    """Return all maps of a network for one image. The network runs once, with exact weights.

    label: the index of the label that Grad-CAM explains; None: the most probable.
    """
    model.eval()
    layers = {path: part for path, part in model.named_modules() if isinstance(part, EncoderLayer)}
    attentions = [layer.self_attention for layer in layers.values()]
    with torch.no_grad(), _recorded_inputs(model) as inputs, recorded(attentions) as weights:
        features = model.backbone(images)[-1]
    with torch.no_grad():
        maps = [made for block, given in inputs for made in _of_block(model, block, given)]
    output, cam = grad_cam(model, features, label)
    maps += _of_pooling(model.pooling, output)
    grid = (features.states.shape[2], features.states.shape[3])
    tokens = 0 if features.token is None else 1  # in front of the patches; rows of weights lack its share
    if tokens:
        maps += _of_token(weights[-1], grid)
    for number, (path, layer, of_layer) in enumerate(zip(layers, layers.values(), weights, strict=True)):
        exact = layer.self_attention.attention.normalize.sums_to_one and not tokens
        map = Map("affinity", of_layer[..., tokens:, tokens:], grid, grid, exact)
        maps.append(ImageMap(f"layer {number}, self-attention", f"{path}.self_attention", "affinity", map))
    if weights:
        flow = rollout([layer[0] for layer in weights])[None, None]
        of_image = Map("affinity", flow, grid, grid, True)
        if tokens:
            of_image = Map("place", flow[:, :, 0, 1:].unflatten(-1, grid), grid)
        maps.append(ImageMap("rollout", "backbone", "rollout", of_image))
    maps.append(ImageMap("Grad-CAM", "backbone", "gradcam", Map("place", cam, grid)))
    return Seen([_on_cpu(made) for made in _numbered(maps)], output)


def block_maps(model: nn.Module, run: Callable[[], R]) -> tuple[list[ImageMap], R]:
    """Return the maps of all attention blocks of a network, and what running it on one image returns. The
    network runs once.

    run: calls the network; each block then looks again, with exact weights.
    """
    model.eval()
    with torch.no_grad(), _recorded_inputs(model) as inputs:
        output = run()
        maps = [made for block, given in inputs for made in _of_block(model, block, given)]
    return [_on_cpu(made) for made in _numbered(maps)], output


def write_maps(
    maps: "ImageMaps", result: Mapping[str, Any], path: str | Path, options: PlotOptions = DEFAULT_PLOT
) -> None:
    """Write a picture of the chosen maps; or, if the path ends in .json, their numbers beside a result."""
    from seq2attn.views.pictures import save_or_json

    save_or_json(path, lambda: maps.draw(options), lambda: {**result, "maps": maps.to_json(options)})


def rollout(layers: Sequence[Float[Tensor, "h N N"]]) -> Float[Tensor, "N N"]:
    """Return how much of each input position is in each output position (Abnar & Zuidema 2020).

    Heads are averaged, the identity is added for the residual connection, rows are divided by their sums, and
    the layers, first to last, are multiplied from the left.
    """
    identity = torch.eye(layers[0].shape[-1], device=layers[0].device)
    whole = identity
    for heads in layers:
        mixed = heads.mean(0) + identity
        whole = mixed / mixed.sum(-1, keepdim=True) @ whole
    return whole


def grad_cam(
    model: ImageClassifier, features: Features, label: int | None = None
) -> tuple[ImageScores, Float[Tensor, "1 1 H W"]]:
    """Return the scores of an image, and Grad-CAM of a label (Selvaraju et al. 2017):
    relu(sum_c w_c A_c), w_c the mean over the grid of d score / d A_c, for the features A of the last stage.
    The score by a class token does not depend on them: then A is what the last layer reads.

    label: its index; None: the most probable.
    """
    grid = features.states.shape[2], features.states.shape[3]
    with torch.enable_grad():
        if features.read is None or not isinstance(model.backbone, ViT):
            states = features.states.detach().requires_grad_()
            output = model.head(features._replace(states=states), need_weights=True)
        else:
            states = on_grid(features.read[:, 1:], grid).detach().requires_grad_()
            read = torch.cat([features.read[:, :1].detach(), rows(states)], 1)
            output = model.head(model.backbone.finish(read, features.mask, grid), need_weights=True)
        score = output.scores[0, output.scores[0].argmax() if label is None else label]
        (gradient,) = torch.autograd.grad(score, states)
    weights = gradient.float().mean((2, 3), keepdim=True)  # (1, C, 1, 1)
    pooled = None if output.weights is None else output.weights.detach()
    output = ImageScores(output.scores.detach(), pooled, output.grid)
    return output, F.relu((weights * states.detach().float()).sum(1, keepdim=True))


class ImageMaps(Mapping[str, Map]):
    """The maps of one image, each a `Map` of a batch of one, by its name: `maps["pooling"].weights`.

    image: as the network has read it; title: of pictures; label: that Grad-CAM explains; drawn: returns the
    image with what was found in it, as pictures show it; None: as it is.
    """

    def __init__(
        self,
        image: ReadImage | Pixels,
        title: str,
        maps: Sequence[ImageMap],
        label: str,
        drawn: Callable[[], Pixels] | None = None,
    ) -> None:
        read = image if isinstance(image, ReadImage) else ReadImage(image, np.eye(2, 3), image.shape[:2])
        self.read, self.pixels = read, read.pixels
        self.title, self.maps, self.label = title, list(maps), label
        self._drawn = drawn or (lambda: self.pixels)

    def __getitem__(self, name: str) -> Map:
        for made in self.maps:
            if made.name == name:
                return made.map
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (made.name for made in self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        return f"ImageMaps({', '.join(self)})"

    def chosen(self, options: PlotOptions = DEFAULT_PLOT) -> list[ImageMap]:
        """Return the maps that options choose, by kind (`map`) and by name or module (`at`).

        With neither they are affinities if there is a query; or else the weights of an attentive pooling, the
        maps of places, Grad-CAM, affinities, or maps of channels: the first of these that there is.
        Seq2attnError if there are none.
        """
        kind, there = options.map, {made.choice for made in self.maps}
        if kind is not None and kind not in MAPS:
            raise Seq2attnError(f"unknown map {kind!r}: expected one of {', '.join(MAPS)}")
        if not there:
            raise Seq2attnError(
                "this network has no attention, and so no maps: blocks are put into it by the key blocks of "
                "its recipe, or, if it is a graph, by insert, replace or inside"
            )
        if kind is None:
            asked = ("affinity", "rollout") if options.query is not None else ()
            first = (*asked, "pooling", "place", "gradcam", "affinity", "channel")
            kind = "all" if options.at else next(name for name in first if name in there)
        maps = [made for made in self.maps if kind in (made.choice, "all")]
        if not maps:
            has = ", ".join(name for name in MAPS if name in there)
            why = " (Grad-CAM is for classification)" if kind == "gradcam" else ""
            raise Seq2attnError(f"this network has no map of the kind {kind}{why}; it has {has}")
        at = options.at or ""
        found = [made for made in maps if at in made.name or at in made.path]
        if not found:
            listed = "\n".join(f"  {made.name} ({made.path})" for made in maps)
            raise Seq2attnError(f"no map is at {at!r}; maps by name (and module):\n{listed}")
        return found

    def draw(self, options: PlotOptions = DEFAULT_PLOT) -> "Figure":
        """Return a picture of the image and the chosen maps. Seq2attnError as `chosen`, and for a query
        outside the image, or a query or head that no chosen map has."""
        from seq2attn.views.image_maps import Original, picture

        maps = self.chosen(options)
        asked = options.query is not None or options.head is not None
        if asked and not any(made.map.kind == "affinity" for made in maps):
            raise Seq2attnError(
                "query and head are for the weights of positions for positions, and no map that is drawn has "
                "them: choose the map affinity or rollout, or leave them out"
            )
        at = None if options.query is None else self.read.pixel(*options.query)
        panels = [panel for made in maps for panel in self._panels(made, options)]
        original = Original(self._drawn(), *self.read.sides)
        return picture(self.pixels, self.title, panels, at, original)

    def to_json(self, options: PlotOptions = DEFAULT_PLOT) -> list[dict[str, Any]]:
        """Return the chosen maps for json.dumps: names, kinds, grids and weights, as nested lists."""
        return [
            {
                "name": made.name,
                "module": made.path,
                "kind": made.map.kind,
                "grid": made.map.grid,
                "keys": made.map.keys,
                "weights": _rounded(made.map.weights[0].tolist()),
            }
            for made in self.chosen(options)
        ]

    def entry(self, name: str) -> Entry:
        """Return what a page of the viewer shows: the image, whose file has this name, and all maps."""
        shown = [
            map_of_image(
                made.name, made.map, made.choice in ("place", "channel") and not made.map.distribution
            )
            for made in self.maps
        ]
        return Entry([Output(self.title, maps=shown)], image=Picture(name, self.pixels))

    def _panels(self, made: ImageMap, options: PlotOptions) -> Iterator["Panel"]:
        """Yield the panels of a map: one, or one for each head that is chosen."""
        from seq2attn.views.image_maps import Bars, Matrix, Overlay

        map, weights = made.map, made.map.weights[0]
        bounded = made.choice in ("place", "channel") and not map.distribution
        scale = options.scale or ("fixed" if bounded else "auto")
        if map.kind == "affinity":
            yield from self._of_queries(made, options, scale)
        elif map.kind in ("channel", "branch"):
            of_branches = weights if map.kind == "branch" else weights.view(1, -1)
            yield Bars(made.name, of_branches.numpy(), scale)
        elif map.kind == "channels":
            yield Matrix(made.name, weights.numpy(), scale)
        else:
            more = f", mean of {len(weights)} channels" if len(weights) > 1 else ""
            more = f" of {self.label}" if made.choice == "gradcam" else more
            yield Overlay(f"{made.name}{more}", weights.mean(0).numpy(), scale)

    def _of_queries(self, made: ImageMap, options: PlotOptions, scale: Any) -> Iterator["Panel"]:
        """Yield the weights of keys, for the query or as the mean of all, for each head that is chosen."""
        from seq2attn.views.image_maps import Overlay

        weights, keys = made.map.weights[0], cast(Grid, made.map.keys)  # (h, N, M)
        if options.query is None:
            rows, of = weights.mean(1), "mean of queries"
        else:
            rows, of = (
                weights[:, self._position(options.query, made.map.grid)],
                "query {},{}".format(*options.query),
            )
        grids, marked = rows.unflatten(-1, keys), options.query is not None  # (h, rows, columns)
        heads = chosen(options.head, len(grids), "head", made.name) if len(grids) > 1 else []
        if not heads:
            several = f", mean of {len(grids)} heads" if len(grids) > 1 else ""
            yield Overlay(f"{made.name}{several}, {of}", grids.mean(0).numpy(), scale, marked)
        for head in heads:
            yield Overlay(f"{made.name}, head {head}, {of}", grids[head].numpy(), scale, marked)

    def _position(self, query: tuple[int, int], grid: Grid) -> int:
        """Return the position of the grid that lies over a pixel (x, y) of the original image."""
        height, width = map(int, self.pixels.shape[:2])
        x, y = self.read.pixel(*query)
        return y * grid[0] // height * grid[1] + x * grid[1] // width


@contextlib.contextmanager
def _recorded_inputs(model: nn.Module) -> Iterator[list[tuple[Block, tuple[Any, Any]]]]:
    """Record each block that is called as long as the context lasts, with its arguments, in the order of the
    calls. Blocks within blocks are left out: the outer one has their maps."""
    inputs: list[tuple[Block, tuple[Any, Any]]] = []
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    inner = {part for block in blocks for part in block.modules() if part is not block}

    def record(block: nn.Module, arguments: Any, options: dict[str, Any]) -> None:
        inputs.append((cast(Block, block), (arguments, options)))

    with contextlib.ExitStack() as stack:
        for block in blocks:
            if block not in inner:
                stack.callback(block.register_forward_pre_hook(record, with_kwargs=True).remove)
        yield inputs


def _of_block(model: nn.Module, block: Block, given: tuple[Any, Any]) -> Iterator[ImageMap]:
    """Yield the maps of a block, for the arguments of its call."""
    paths = {part: path for path, part in model.named_modules()}
    names = {kind: name for name, kind in BLOCKS.items()}
    parent = next((part for part in paths if isinstance(part, Blocks) and block in part.children()), None)
    where = paths[block] if parent is None or not parent.name else parent.name
    name = f"{where}, {names.get(type(block), type(block).__name__)}"
    arguments, options = given
    for of, map in block.look(*arguments, **options).maps.items():
        yield ImageMap(f"{name}: {of}", paths[block], _CHOICES.get(map.kind, "place"), map)


def _of_pooling(pooling: AttentivePooling | PlainPooling | None, output: ImageScores) -> Iterator[ImageMap]:
    """Yield the weights of each query and head of a pooling; those of a mean are all alike, and left out."""
    if output.weights is None or output.grid is None or getattr(pooling, "kind", "") == "mean":
        return
    exact = not isinstance(pooling, AttentivePooling) or _attention_of(pooling).normalize.sums_to_one
    of_queries = output.weights.float().unflatten(-1, output.grid)  # (1, h, H, W)
    for number in range(of_queries.shape[1]):
        name = "pooling" if of_queries.shape[1] == 1 else f"pooling {number}"
        map = Map("place", of_queries[:, number : number + 1], output.grid, None, exact)
        yield ImageMap(name, "pooling", "pooling", map)


def _of_token(weights: Float[Tensor, "1 h M M"], grid: Grid) -> Iterator[ImageMap]:
    """Yield the weights by which the class token attends to the image in the last layer, of each head."""
    of_heads = weights[:, :, 0, 1:].unflatten(-1, grid)  # (1, h, H, W)
    for head in range(of_heads.shape[1]):
        name = "class token" if of_heads.shape[1] == 1 else f"class token, head {head}"
        yield ImageMap(name, "backbone", "pooling", Map("place", of_heads[:, head : head + 1], grid))


def _attention_of(pooling: AttentivePooling) -> Any:
    """Return the Attention of a pooling, with or without heads."""
    attention = pooling.pooling.attention
    return getattr(attention, "attention", attention)


def _numbered(maps: Sequence[ImageMap]) -> Iterator[ImageMap]:
    """Yield maps whose names differ: the second of a name has (2) behind it, and so on."""
    counts = dict[str, int]()
    for made in maps:
        count = counts[made.name] = counts.get(made.name, 0) + 1
        yield made if count == 1 else made._replace(name=f"{made.name} ({count})")


def _on_cpu(made: ImageMap) -> ImageMap:
    return made._replace(map=made.map._replace(weights=made.map.weights.detach().float().cpu()))


def _rounded(values: Any) -> Any:
    """Return nested lists with six digits of each number."""
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.{_DIGITS}g}")
