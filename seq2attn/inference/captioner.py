"""The predictor that writes texts from images: captions, formulas."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor
from typing_extensions import Unpack

from seq2attn.alignment.word_alignment import by_words, shifted
from seq2attn.data.image_texts import ImageTokenizer
from seq2attn.errors import Seq2attnError, require_type
from seq2attn.images.decoding import ImageReader, Pixels
from seq2attn.inference.captions import Caption
from seq2attn.inference.decoding_options import DecodingOptions, published, warn_of_limits
from seq2attn.inference.forced import ForcedDecoding
from seq2attn.inference.generator import AlignmentHead
from seq2attn.inference.image_input import CHUNK, image_chunks, read_image, several
from seq2attn.inference.predictor import DEFAULT_PLOT, NO_OPTIONS, PlotOptions, all_texts
from seq2attn.inference.search import Hypothesis
from seq2attn.inference.writing_predictor import WritingPredictor
from seq2attn.recipe import DecodingRecipe
from seq2attn.text.vocabulary import Tokens
from seq2attn.views.viewer import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2attn.inference.image_input import OneImage

_UNUSED = ("self_attention", "right_to_left", "map", "at", "query", "method")  # options of other heat maps
_Named = tuple[str, Pixels]


@dataclass(frozen=True, eq=False, repr=False)
class Captioner(WritingPredictor[ImageTokenizer]):
    """Writes a text from an image. Returned by `seq2attn.load(run)`.

    reader: reads images as in training.
    """

    reader: ImageReader = field(kw_only=True)

    task, command = "image_to_text", "caption"

    # ---- writing -----------------------------------------------------------------------------------

    @overload
    def _write(  # type: ignore[overload-overlap]
        self,
        image: "OneImage",
        *,
        prefix: str = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> Caption: ...

    @overload
    def _write(
        self,
        image: "Sequence[OneImage]",
        *,
        prefix: str = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> list[Caption]: ...

    def _write(
        self,
        image: Any,
        *,
        prefix: str = "",
        alignment: bool = True,
        **options: Unpack[DecodingOptions],
    ) -> Caption | list[Caption]:
        """Return the text that is written from an image, or those of a list of images.

        image: the path of a file, an image of Pillow, or 8-bit pixels (H, W) or (H, W, channels), as a numpy
            array;
        prefix: the beginning of the text; its last word may go on, unless a space ends it;
        alignment: False skips the attention weights, which saves time;
        all others: decoding options that replace the recipe's (`DecodingOptions`).

        Raises:
            ImageError: it is no image, or damaged; the message names the file.
        """
        require_type(prefix, str, "a prefix (str), the same for all images")
        images = image if several(image) else [image]
        results = list(self.stream(images, self.settings(options), alignment, prefix))
        return results if several(image) else results[0]

    caption = published(_write, "Captioner.caption")

    def stream(
        self,
        lines: Iterable[Any],
        decoding: DecodingRecipe | None = None,
        alignment: bool = False,
        prefix: str = "",
        first: int = 0,
        exact: bool = True,
    ) -> Iterator[Caption]:
        """Yield the texts of images in their order; images as `caption` takes them.

        decoding: replaces the predictor's own settings; first: the number of images before these, on which
        samples and warnings depend; exact: False leaves the scores of an engine as they are, which saves time
        where they are not shown.
        """
        decoding = decoding or self.decoding
        for chunk in image_chunks(lines, self.reader, CHUNK):
            indices = range(first, first + len(chunk))
            yield from self.results(chunk, decoding, alignment, [prefix] * len(chunk), indices, exact)
            first += len(chunk)

    def align(
        self, image: "OneImage", text: str, layer: int | None = None, head: int | None = None
    ) -> Caption:
        """Return the score and the attention weights of a given text.

        layer, head: replace those of the predictor's `alignment`.
        """
        require_type(text, str, "a text (str)")
        chosen = self._chosen(layer, head)
        name, pixels = read_image(image, self.reader)
        tokens = self.target.split(text)
        (forced,) = self.generator.forced_decoding([pixels], [tokens.ids], self.decoding.batch_tokens, chosen)
        return self._result((name, pixels), tokens, text, self._given(tokens.ids, forced), forced)

    def log_probabilities(self, images: "Sequence[OneImage]", texts: Sequence[str]) -> list[float]:
        """Return the model's log-probability of each text given its image, </s> included, in nats."""
        if not several(images) or len(images) != len(texts):
            raise Seq2attnError("expected a list of images, and a text for each of them")
        pixels = [pixels for chunk in image_chunks(images, self.reader) for _, pixels in chunk]
        ids = [tokens.ids for tokens in map(self.target.split, all_texts(texts, "texts"))]
        forced = self.generator.forced_decoding(pixels, ids, self.decoding.batch_tokens, None)
        return [one.log_probability for one in forced]

    # ---- as a predictor ----------------------------------------------------------------------------

    def settings(self, options: Mapping[str, object]) -> DecodingRecipe:
        """See the base class."""
        if options.get("replace_unknown"):
            raise Seq2attnError("replace_unknown takes words from a source text, and an image has none")
        return super().settings(options)

    @property
    def memory_advice(self) -> str:
        """See the base class."""
        return f"{super().memory_advice}, or the size of images (data.size)"

    def draw(
        self,
        text: "OneImage",
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> tuple[Caption, "Figure"]:
        """See the base class. text: an image."""
        result = self._looked(text, options, decoding)
        return result, _figure(result, options)

    def plot(
        self,
        text: "OneImage",
        path: str | Path,
        options: PlotOptions = DEFAULT_PLOT,
        decoding: Mapping[str, object] = NO_OPTIONS,
    ) -> Caption:
        """See the base class. A path that ends in .json gets the result with its weights instead of a
        picture."""
        from seq2attn.views.pictures import save_or_json

        result = self._looked(text, options, decoding)
        save_or_json(path, lambda: _figure(result, options), result.to_json)
        return result

    def _looked(self, text: "OneImage", options: PlotOptions, decoding: Mapping[str, object]) -> Caption:
        """Return the result of an image with the weights that a heat map shows."""
        options.refuse(_UNUSED, "other models")
        if "all" in (options.layer, options.head):
            raise Seq2attnError("a picture has the weights of one layer and head: give a number, not all")
        layer, head = (None if choice == "all" else choice for choice in (options.layer, options.head))
        predictor = self.configured({**decoding, "nbest": 1})
        predictor = replace(predictor, alignment=AlignmentHead(layer, head))
        if options.target is None:
            (result,) = predictor.stream([text], alignment=True)
            return result
        self._warn_of_unknown("target", [options.target], [self.target.split(options.target).ids])
        return predictor.align(text, options.target)

    def _viewed_parts(self, text: "OneImage") -> tuple[Any, ...]:
        """See the base class."""
        name, pixels = read_image(text, self.reader)
        return pixels, Picture(name, pixels), self.target.split, self.generator.tokenizer.grid(pixels)

    # ---- parts -------------------------------------------------------------------------------------

    def _chunks(self, lines: Iterable[Any]) -> Iterator[list[Any]]:
        """See the base class."""
        return image_chunks(lines, self.reader, CHUNK)

    def results(
        self,
        images: Sequence[_Named],
        decoding: DecodingRecipe,
        alignment: bool,
        prefixes: Sequence[str],
        indices: Sequence[int],
        exact: bool = True,
    ) -> list[Caption]:
        """Return the results of images, each with its name, that are computed together; `indices` are those
        of the images in their inputs, which may be several: samples depend on them."""
        pixels, rows = [image for _, image in images], range(len(images))
        distinct = {prefix: self.target.split(prefix).ids for prefix in prefixes}
        ids = dict(zip(distinct, self._prefixes([*distinct], [*distinct.values()]), strict=True))
        prefix_ids = [ids[prefix] for prefix in prefixes]
        head = self.alignment if alignment and self.model.decoder.attention_layers else None
        nbest_lists = self.generator.decode(pixels, decoding, prefix_ids, indices, head, exact)
        results: list[list[Caption]] = [[] for _ in images]
        for row, nbest in zip(rows, nbest_lists, strict=True):
            for hypothesis, forced in nbest:
                tokens = self.target.join(hypothesis.tokens)
                text = self._text(hypothesis.tokens)
                results[row].append(self._result(images[row], tokens, text, hypothesis, forced))
        longest = [i + 1 for i, nbest in zip(indices, results, strict=True) if nbest[0].truncated]
        warn_of_limits(longest, decoding, self.model.decoder.max_length)
        return [nbest[0].among(nbest) for nbest in results]

    def _result(
        self,
        image: _Named,
        tokens: Tokens,
        text: str,
        hypothesis: Hypothesis,
        forced: ForcedDecoding | None,
    ) -> Caption:
        score, log_probability, truncated = hypothesis.score, hypothesis.log_probability, hypothesis.truncated
        result = Caption(*image, tokens, text, score, log_probability, truncated=truncated)
        if forced is None or forced.weights is None:
            return result
        weights: Tensor = shifted(forced.weights, self.alignment.shift_of(self.model.decoder))  # (Tp, S)
        grid = self.generator.tokenizer.grid(image[1])
        words = by_words(weights, tokens.word_of, range(weights.shape[1]), source_eos=False).weights
        return replace(
            result,
            weights=weights.unflatten(-1, grid),
            alignment=words.unflatten(-1, grid),
            attention=forced.attention,
        )


def _figure(result: Caption, options: PlotOptions) -> "Figure":
    return result.plot(pieces=options.pieces, scale=options.scale or "auto")
