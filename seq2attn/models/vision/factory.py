"""Functions that build the network of an image recipe."""

from collections.abc import Sequence
from functools import partial

import torch

from seq2attn.attention.blocks import BLOCKS
from seq2attn.attention.blocks.block import Place
from seq2attn.attention.positions import POSITIONS
from seq2attn.layers.basic import Dropout
from seq2attn.layers.convolution import Blocks
from seq2attn.layers.graph_modules import Shape
from seq2attn.models.seq2seq import Seq2Seq
from seq2attn.models.seq2seq_factory import build_decoder, encoder_layers, initialise
from seq2attn.models.tagger_factory import build_pooling
from seq2attn.models.vision.adversarial_layers import Form
from seq2attn.models.vision.backbone import Backbone, BlocksAt
from seq2attn.models.vision.classifier import ImageClassifier
from seq2attn.models.vision.densenet import DenseNet
from seq2attn.models.vision.discriminators import (
    AdversarialPair,
    ConvolutionalDiscriminator,
    ResidualDiscriminator,
)
from seq2attn.models.vision.encoder import ImageEncoder
from seq2attn.models.vision.generators import ConvolutionalGenerator, ResidualGenerator
from seq2attn.models.vision.graph import IMAGE, GraphNetwork, GraphRow
from seq2attn.models.vision.plain import ConvNet
from seq2attn.models.vision.resnet import ResNet
from seq2attn.models.vision.segmenters import (
    ASPPHead,
    BlockHead,
    DANetHead,
    Head,
    HeadNet,
    SegmentationNet,
    UNet,
)
from seq2attn.models.vision.vit import PatchEmbedding, ViT
from seq2attn.recipe.blocks import BlockRecipe
from seq2attn.recipe.graph import GraphRecipe
from seq2attn.recipe.image_generation import GenerationModelRecipe, GridBlockRecipe
from seq2attn.recipe.image_text import ImageToTextModelRecipe
from seq2attn.recipe.segmentation import AnySegmenterRecipe, HeadNetRecipe, UNetRecipe
from seq2attn.recipe.vision_model import (
    AnyBackbone,
    ClassTokenRecipe,
    ConvNetRecipe,
    DenseNetRecipe,
    ImageClassifierRecipe,
    ViTRecipe,
)
from seq2attn.runtime.devices import TOO_LARGE, explain_out_of_memory

GENERATORS = {"residual": ResidualGenerator, "dcgan": ConvolutionalGenerator}  # by their names in recipes
DISCRIMINATORS = {"residual": ResidualDiscriminator, "dcgan": ConvolutionalDiscriminator}


def build_image_classifier(
    recipe: ImageClassifierRecipe, channels: int, labels: Sequence[str]
) -> ImageClassifier:
    """Return the classifier that a recipe describes, for images with this number of channels, freshly
    initialised. Seed torch before: initial weights are random."""
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        by_token = isinstance(recipe.pooling, ClassTokenRecipe)
        backbone = build_backbone(recipe.backbone, channels, class_token=by_token)
        pooling = None
        if not isinstance(recipe.pooling, ClassTokenRecipe):
            pooling = build_pooling(recipe.pooling, backbone.sizes[-1])
        return ImageClassifier(backbone, labels, pooling, recipe.dropout)


def build_backbone(recipe: AnyBackbone, channels: int, class_token: bool = False) -> Backbone:
    """Return the network of the features of images with this number of channels.

    class_token: whether a vision Transformer has one; the others never do.
    """
    if isinstance(recipe, ViTRecipe):
        return _vit(recipe, channels, class_token)
    if isinstance(recipe, GraphRecipe):
        return build_graph(recipe, channels)
    blocks = partial(_blocks_at, recipe.blocks)
    if isinstance(recipe, ConvNetRecipe):
        return ConvNet(recipe.sizes, channels, recipe.norm, blocks)
    if isinstance(recipe, DenseNetRecipe):
        sizes = recipe.layers, recipe.growth, recipe.stem
        return DenseNet(*sizes, channels, recipe.norm, recipe.dropout, blocks)
    return ResNet(recipe.form, channels, recipe.norm, blocks, recipe.last_norm_zero, recipe.drop_path)


def build_graph(recipe: GraphRecipe, channels: int) -> GraphNetwork:
    """Return the network of a graph, for images with this number of channels."""
    plan, scale, style = recipe.plan(), recipe.scaling, recipe.style
    shapes, rows = {IMAGE: Shape(channels, 1)}, list[GraphRow]()
    for node in plan.nodes:
        sources = tuple(read.name for read in node.reads if read is not None)
        module = node.make([shapes[name] for name in sources], scale, style)
        rows.append(GraphRow(node.name, module, sources))
        shapes[node.name] = module.shape
    return GraphNetwork(rows, [node.name for node in plan.outputs])


def build_image_to_text(recipe: ImageToTextModelRecipe, channels: int, target_size: int) -> Seq2Seq:
    """Return the model that a recipe describes, for images with this number of channels and a vocabulary of
    this size, freshly initialised. Seed torch before: initial weights are random."""
    section = recipe.encoder
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        backbone = build_backbone(section.backbone, channels)
        positions = None if section.positions is None else section.positions.make(POSITIONS, section.size)
        encoder = ImageEncoder(backbone, section.size, positions, Dropout(section.dropout))
        decoder = build_decoder(recipe.decoder, target_size, encoder.size, recipe.tied)
    return Seq2Seq(encoder, decoder)


def build_segmenter(recipe: AnySegmenterRecipe, channels: int, classes: Sequence[str]) -> SegmentationNet:
    """Return the network that a recipe describes, for images with this number of channels, freshly
    initialised. Seed torch before: initial weights are random."""
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        if isinstance(recipe, UNetRecipe):
            encoder, decoder = (
                _named(partial(_blocks_at, sections), name)
                for name, sections in (("encoder", recipe.encoder_blocks), ("decoder", recipe.decoder_blocks))
            )
            return UNet(recipe.sizes, channels, classes, recipe.norm, encoder, decoder, recipe.dropout)
        backbone = build_backbone(recipe.backbone, channels)
        head = _head(recipe, backbone.sizes[-1], len(classes))
        return HeadNet(backbone, classes, head, auxiliary=recipe.auxiliary > 0)


def _head(recipe: HeadNetRecipe, channels: int, classes: int) -> Head:
    """Return the head of a recipe over features with this number of channels."""
    part, norm = recipe.head, recipe.norm
    if part.name == "aspp":
        sized = part.model_copy(update={"size": recipe.width})
        return ASPPHead(sized.make(BLOCKS, channels), classes, norm)
    if part.name == "danet":
        return DANetHead(part.model_copy(update={"size": classes}).make(BLOCKS, channels), norm)
    return BlockHead(channels, part.make(BLOCKS, recipe.width), classes, norm, recipe.dropout)


def _named(blocks_at: BlocksAt, name: str) -> BlocksAt:
    """Return what makes the blocks of the rows of an encoder or decoder, by whose names they are shown."""

    def blocks(stage: int, unit: int, place: Place, channels: int) -> Blocks:
        return Blocks([*blocks_at(stage, 0, place, channels)], f"{name} {stage + 1}")

    return blocks


def build_adversarial(
    recipe: GenerationModelRecipe, channels: int, size: tuple[int, int], labels: Sequence[str] = ()
) -> AdversarialPair:
    """Return the generator and the discriminator that a recipe describes, for images with this number of
    channels, height and width, freshly initialised. Seed torch before: initial weights are random.

    labels: the classes, if the model is conditional.
    """
    with explain_out_of_memory(TOO_LARGE), torch.device("cpu"):  # whatever torch's default device is
        forms = [
            Form(
                player.sizes,
                channels,
                *size,
                player.norm,
                player.spectral_norm,
                len(labels),
                partial(_blocks_on, player.blocks, name),
            )
            for name, player in (("generator", recipe.generator), ("discriminator", recipe.discriminator))
        ]
        generator = GENERATORS[recipe.generator.kind](recipe.latent, forms[0])
        return AdversarialPair(generator, DISCRIMINATORS[recipe.discriminator.kind](forms[1]), labels)


def _blocks_on(sections: Sequence[GridBlockRecipe], name: str, height: int, channels: int) -> Blocks:
    """Return the blocks on a grid of this height."""
    chosen = [section.block.make(BLOCKS, channels) for section in sections if section.grid == height]
    return Blocks(chosen, f"{name}, grid {height}")


def _blocks_at(sections: Sequence[BlockRecipe], stage: int, unit: int, place: Place, channels: int) -> Blocks:
    """Return the blocks at a place; stages and units count from 0, and the unit is -1 between stages."""
    return Blocks(
        [
            section.block.make(BLOCKS, channels)
            for section in sections
            if section.place == place
            and (section.stages is None or stage + 1 in section.stages)
            and (unit + 1) % section.every == 0
        ],
        f"stage {stage + 1}, {place}" if unit < 0 else f"stage {stage + 1}, unit {unit + 1}, {place}",
    )


def _vit(recipe: ViTRecipe, channels: int, class_token: bool) -> ViT:
    added = POSITIONS[recipe.positions.name].where == "embedding"
    positions = recipe.positions.make(POSITIONS, recipe.size) if added else None
    dropout = Dropout(recipe.dropout)
    embedding = PatchEmbedding(channels, recipe.size, recipe.patch, dropout, recipe.stem, positions)
    vit = ViT(embedding, encoder_layers(recipe, recipe.drop_path), recipe.norm, class_token)
    initialise(vit)
    return vit
