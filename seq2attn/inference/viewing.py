"""Entries of a page of the viewer: from the activations of a model that writes texts, from maps of images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from seq2attn.alignment.word_alignment import Gold
from seq2attn.attention.blocks import Map
from seq2attn.data.batches import PairIds
from seq2attn.data.gold_alignments import words_of_pieces
from seq2attn.errors import Seq2attnError
from seq2attn.inference.activations import Activations, activations
from seq2attn.inference.beam_search import BeamStep
from seq2attn.inference.generator import AlignmentHead, Generator
from seq2attn.inference.search import Hypothesis
from seq2attn.models.decoders import Decoder
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Tokens, Vocabulary
from seq2attn.text.words import words
from seq2attn.views.viewer import (
    Entry,
    Group,
    Item,
    Layer,
    MapOfImage,
    Output,
    Page,
    Picture,
    Side,
    Step,
    TreeNode,
)
from seq2attn.views.viewer.document import IMAGE, SOURCE, TARGET, Names

CANDIDATES = 8  # of a step
_AFFINITIES = 4_000_000  # weights of places for places; of more only the mean of all queries is shown


class ViewOptions(NamedTuple):
    """What a page shows of a text."""

    target: str | None = None  # given, in the place of the model's own output
    self_attention: bool = False  # also the self-attention of encoder and decoder
    prefix: str = ""  # the beginning of the model's own output
    spaces: bool = False  # words are what white space separates, as in alignment files; needs a target


DEFAULT_VIEW = ViewOptions()


class ViewedInput(NamedTuple):
    """The input of a model that writes texts, and all that a page needs of the model."""

    generator: Generator[Any]
    decoding: DecodingRecipe
    alignment: AlignmentHead
    write: Callable[[Sequence[int], Sequence[str]], str]  # the text of ids, and of pieces that are copied
    prefixes: Callable[[Sequence[str], Sequence[Sequence[int]]], list[Sequence[int]]]  # as search takes them
    source: Any  # as the generator takes it
    side: Side | Picture  # as a page shows it
    tokenize: Callable[[str], Tokens]  # a given target
    grid: tuple[int, int] | None = None  # of an image

    @property
    def copied(self) -> list[str]:
        """The pieces that ids beyond the vocabulary copy."""
        return (self.side.pieces or []) if isinstance(self.side, Side) else []

    @property
    def names(self) -> list[str]:
        """The names of the source's positions; none of a blank text."""
        if self.grid is None:
            return [*self.copied, "</s>"] if self.copied else []
        rows, columns = self.grid
        return [f"{row},{column}" for row in range(rows) for column in range(columns)]

    @property
    def target(self) -> Vocabulary:
        """The vocabulary of targets."""
        return self.generator.tokenizer.target  # type: ignore[no-any-return]

    def best(self) -> Tokens:
        """Return what the model writes."""
        return self.target.join(self.generator.search([self.source], self.decoding)[0][0].tokens, self.copied)

    def activations(self, target: Tokens, gradients: bool = False) -> Activations:
        """Return what is inside the model for a target."""
        names = self.names, [*target.pieces, "</s>"]
        return activations(self.generator, PairIds(self.source, target.ids), names, gradients)

    def entry(self, options: ViewOptions) -> Entry:
        """Return what a page shows of the input."""
        tree = Tree([], {})
        if options.target is not None:
            tokens = self.tokenize(options.target)
            outputs = [self._output(tokens, options.target, options)]
        elif not self.names:
            outputs = [Output("")]  # of a blank text
        else:
            (prefix,) = self.prefixes([options.prefix], [self.tokenize(options.prefix).ids])
            nbest, trace = self.generator.traced(self.source, self.decoding, prefix)
            tree = tree_of(trace, self.target, self.copied)
            outputs = [self._found(hypothesis, tree, options) for hypothesis in nbest]
        if isinstance(self.side, Picture):
            return Entry(outputs, image=self.side, beam=tree.nodes)
        source = self.side
        if options.spaces:
            source = by_spaces(source, self.generator.tokenizer.source)
        return Entry(outputs, source, beam=tree.nodes)

    def _found(self, hypothesis: Hypothesis, tree: "Tree", options: ViewOptions) -> Output:
        """Return what a page shows of a hypothesis."""
        tokens = self.target.join(hypothesis.tokens, self.copied)
        output = self._output(tokens, self.write(hypothesis.tokens, self.copied), options)
        return output._replace(score=hypothesis.score, end=tree.ends.get(tuple(hypothesis.tokens)))

    def _output(self, tokens: Tokens, text: str, options: ViewOptions) -> Output:
        """Return what a page shows of a target, from one forced pass."""
        found, decoder = self.activations(tokens), self.generator.model.decoder
        chosen = self.generator.alignment_head(self.alignment) if decoder.attention_layers else (0, None)
        columns = SOURCE if self.grid is None else IMAGE
        groups = cross_attention(found, columns, decoder, self.alignment, chosen, self.grid)
        groups += self_attention(found, self.grid is None) if options.self_attention else []
        total = float(found.target_log_probabilities.sum())
        score = self.generator.rules(self.decoding).score(total, len(found.target))
        side = Side.of(tokens, text)
        if options.spaces:
            side = by_spaces(side, self.target)
        made = steps(found, tokens.ids, self.target, self.copied)
        return Output(text, side, groups, made, score=score, note=f"log-probability {total:.3f}")


class Viewable(Protocol):
    """A predictor whose results the viewer shows."""

    def entry(self, text: Any, options: ViewOptions, decoding: Mapping[str, object]) -> Entry:
        """Return what a page shows of a text or an image."""


def page_of(
    predictors: Mapping[str, Viewable],
    texts: Sequence[Any],
    options: Sequence[ViewOptions],
    decoding: Mapping[str, object],
    gold: Sequence[Gold] = (),
    exact: bool = False,
) -> Page:
    """Return a page of texts or images, with one or two models beside each other.

    predictors: by the names that the page gives them; options: of each text; gold: the links of each text;
    exact: see `Page`.
    """
    if not 1 <= len(predictors) <= 2:
        raise Seq2attnError(f"a page shows one model or compares two, got {len(predictors)}")
    items = []
    for number, (text, chosen) in enumerate(zip(texts, options, strict=True)):
        entries = [predictor.entry(text, chosen, decoding) for predictor in predictors.values()]
        items.append(Item(entries, gold[number] if gold else None))
    return Page(" and ".join(predictors), [*predictors], items, exact)


def cross_attention(
    found: Activations,
    columns: Names,
    decoder: Decoder,
    alignment: AlignmentHead,
    chosen: tuple[int, int | None],
    grid: tuple[int, int] | None = None,
) -> list[Group]:
    """Return the group of a decoder's attention to the source, and that of its shift head if it has one,
    first the group of alignments; none without attention.

    chosen: the layer and head that `alignment` is; grid: of an image.
    """
    if found.cross_attention is None:
        return []
    after, own = ["</s>"] if grid is None else None, decoder.own_layers
    groups = []
    for name, first, count in (("attention to the source", 0, own), ("shift head", own, 1)):
        if not (weights := found.cross_attention[0, first : first + count]).shape[0]:
            continue
        shift = alignment._replace(layer=first).shift_of(decoder)
        of_group = (chosen[0] - first, chosen[1]) if first <= chosen[0] < first + count else None
        layers = _layers(weights, grid)
        groups.append(Group(name, TARGET, columns, layers, shift, after=after, chosen=of_group))
    return sorted(groups, key=lambda group: group.chosen is None)


def self_attention(found: Activations, of_source: bool) -> list[Group]:
    """Return the groups of self-attention of encoder and decoder, those that there are; of_source: whether
    the source is a text, and its own is wanted."""
    groups = []
    if found.encoder_attention and of_source:
        layers = _layers([layer[0] for layer in found.encoder_attention])
        groups.append(Group("encoder's self-attention", SOURCE, SOURCE, layers, after=["</s>"]))
    if found.decoder_attention:  # step t reads the piece t - 1, and attends to all that were read
        layers = _layers([layer[0] for layer in found.decoder_attention])
        groups.append(Group("decoder's self-attention", TARGET, TARGET, layers, 1, before=["<s>"]))
    return groups


def _layers(layers: Sequence[Tensor] | Tensor, grid: tuple[int, int] | None = None) -> list[Layer]:
    return [Layer(f"layer {number}", layer.numpy(), grid) for number, layer in enumerate(layers)]


def steps(
    found: Activations, ids: Sequence[int], vocabulary: Vocabulary, copied: Sequence[str]
) -> list[Step]:
    """Return the steps of decoding ids, </s> included. copied: see `piece_of`."""
    log_p = found.log_probabilities[0]  # (T, V)
    top = log_p.topk(min(CANDIDATES, log_p.shape[1]), dim=1)
    targets = torch.tensor([*ids, vocabulary.eos], device="cpu")
    own = log_p.gather(1, targets[:, None])  # (T, 1)
    ranks = (log_p > own).sum(1).tolist()
    return [
        Step(
            piece,
            float(own[step]),
            ranks[step],
            [
                (piece_of(number, vocabulary, copied), probability)
                for number, probability in zip(
                    top.indices[step].tolist(), top.values[step].exp().tolist(), strict=True
                )
            ],
        )
        for step, piece in enumerate(found.target)
    ]


def piece_of(number: int, vocabulary: Vocabulary, copied: Sequence[str] = ()) -> str:
    """Return the piece of an id; those beyond the vocabulary are `copied`, the pieces of the source."""
    special = {
        vocabulary.eos: "</s>",
        vocabulary.bos: "<s>",
        vocabulary.pad: "<pad>",
        vocabulary.unk: "<unk>",
    }
    if number in special:
        return special[number]
    return copied[number - vocabulary.size] if number >= vocabulary.size else vocabulary.pieces([number])[0]


class Tree(NamedTuple):
    """The tree of a beam search, and the step and node at which each hypothesis ends, by its tokens."""

    nodes: list[list[TreeNode]]
    ends: dict[tuple[int, ...], tuple[int, int]]


def tree_of(trace: Sequence[BeamStep], vocabulary: Vocabulary, copied: Sequence[str]) -> Tree:
    """Return the tree of a beam search of one sentence."""
    nodes, ends = list[list[TreeNode]](), dict[tuple[int, ...], tuple[int, int]]()
    prefixes: list[tuple[int, ...]] = [()]
    for number, step in enumerate(trace):
        made = [(one, False) for one in step.kept] + [(one, True) for one in step.ended]
        nodes.append(
            [
                TreeNode(piece_of(token, vocabulary, copied), origin, total, end)
                for (origin, token, total), end in made
            ]
        )
        for index, (origin, _, _) in enumerate(step.ended, len(step.kept)):
            ends[prefixes[origin]] = number, index
        prefixes = [(*prefixes[origin], token) for origin, token, _ in step.kept]
    return Tree(nodes, ends)


def by_spaces(side: Side, vocabulary: Vocabulary) -> Side:
    """Return a text whose words are what white space separates, as alignment files count them."""
    word_of = words_of_pieces(side.text, vocabulary)[: len(side.pieces or [])]
    return side._replace(words=words(side.text), word_of=word_of)


def map_of_image(name: str, map: Map, bounded: bool) -> MapOfImage:
    """Return a map of a batch of one image as a page shows it.

    bounded: whether its colours go from 0 to 1, unless a weight is more.
    """
    weights = map.weights[0].float()
    if map.kind in ("channel", "branch"):
        of_branches = weights if map.kind == "branch" else weights.view(1, -1)
        return MapOfImage(name, "channel", of_branches[None].numpy())
    if map.kind == "channels":
        return MapOfImage(name, "matrix", weights[None].numpy())
    if map.kind == "affinity":
        if weights.numel() > _AFFINITIES:
            return MapOfImage(name, "place", weights.mean(1, keepdim=True).numpy(), cast(Any, map.keys))
        return MapOfImage(name, "place", weights.numpy(), cast(Any, map.keys), map.grid)
    mean = weights.mean(0)  # (rows, columns), of all channels
    limits = (min(0.0, float(mean.min())), max(1.0, float(mean.max()))) if bounded else None
    return MapOfImage(
        name, "place", mean.reshape(1, 1, -1).numpy(), cast(Any, tuple(mean.shape)), limits=limits
    )
