"""What clients send: the JSON of each route, checked, with an example for the documentation."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from seq2attn.alignment.markup import Kind

PIXEL = (  # a grey one, as PNG in base64
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
GERMAN, ENGLISH = "Wo ist der Bahnhof?", "Where is the station?"


def is_text(text: str) -> bool:
    """Whether a string has only characters that a text can have: no half of a surrogate pair, and no NUL."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _clean(text: str) -> str:
    if not is_text(text):
        raise ValueError("a text is in Unicode, without NUL and without halves of surrogate pairs")
    return text


Text = Annotated[str, AfterValidator(_clean)]


def example(values: dict[str, Any]) -> ConfigDict:
    """Return the settings of a request that has an example, beside those of `Request`."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class Request(BaseModel):
    """What every request may have: no unknown keys, and no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    model: str | None = Field(None, description="The name of a model; not needed if only one has this route.")


class LanguagesRequest(Request):
    """A request for a model of two languages."""

    source: str | None = Field(None, description="The source language, to find a model by.")
    target: str | None = Field(None, description="The target language, likewise.")


class TextsRequest(Request):
    """A request with one text or several."""

    text: Text | None = Field(None, description="A text, which is one line: usually a sentence.")
    texts: list[Text] | None = Field(None, description="Several texts, in the place of `text`.")
    long: Literal["cut", "refuse"] = Field(
        "cut", description="Of texts that are longer than the model reads: `cut` says so in the result."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError("expected either text or texts")
        return self

    @property
    def items(self) -> list[str]:
        """The texts."""
        return [*(self.texts or ())] if self.text is None else [self.text]


class DecodingRequest(Request):
    """Settings of a search that replace those of the model's recipe."""

    beam: int | None = Field(None, ge=1, description="Beam size; 1 = greedy search.")
    nbest: int | None = Field(None, ge=1, description="Number of results for each text.")
    length_penalty: float | None = Field(None, description="Exponent of the length normalization of scores.")
    coverage_penalty: float | None = Field(None, description="Penalty for source words without attention.")
    min_length: int | None = Field(None, ge=0, description="Shortest output in pieces.")
    max_length: int | None = Field(None, ge=1, description="Longest output in pieces, at most the recipe's.")
    max_length_ratio: float | None = Field(
        None, description="Longest output as a multiple of the source length, plus 10 pieces."
    )
    no_repeat_ngram: int | None = Field(None, ge=0, description="Forbid repeated n-grams of so many pieces.")
    sample: bool | None = Field(None, description="Sample instead of searching.")
    temperature: float | None = Field(None, description="Temperature of sampling.")
    top_k: int | None = Field(None, ge=0, description="Sample from the k most probable pieces.")
    top_p: float | None = Field(None, description="Sample from pieces with this total probability.")
    seed: int | None = Field(None, ge=0, description="Seed of sampling.")

    def decoding(self) -> dict[str, Any]:
        """Return the settings that are given."""
        return {name: value for name in DECODING if (value := getattr(self, name)) is not None}


DECODING = (*DecodingRequest.model_fields.keys() - {"model"},)


class WritingRequest(TextsRequest, DecodingRequest):
    """A request for texts that are written from texts."""

    tag: Text | None = Field(
        None, description="Begin each text with this tag of the model, such as the target language."
    )
    prefix: Text = Field("", description="The beginning of each result.")
    alignment: bool = Field(
        False, description="Also return the words of both texts, and which source words each one looks at."
    )
    weights: bool = Field(False, description="Also return the attention of each word to each source word.")
    replace_unknown: bool | None = Field(None, description="Copy source words in the place of unknown ones.")
    split: bool = Field(
        False,
        description="Each text has several sentences or lines: translate them one by one, and join them.",
    )

    @property
    def looked(self) -> bool:
        """Whether the words are asked for, and where each one looks."""
        return self.alignment or self.weights

    @model_validator(mode="after")
    def _prefix_of_one(self) -> Self:
        if self.prefix and self.split:
            raise ValueError("a prefix is that of one sentence: leave out split")
        return self

    def decoding(self) -> dict[str, Any]:
        """See the base class."""
        options = super().decoding()
        return (
            options if self.replace_unknown is None else {**options, "replace_unknown": self.replace_unknown}
        )


class TranslateRequest(WritingRequest, LanguagesRequest):
    """A request for translations."""

    model_config = example({"text": GERMAN, "alignment": True})

    markup: Kind | None = Field(
        None,
        description="Keep tags or placeholders: they go where their words went. Each text is divided into "
        "sentences, as by `split`. Only the best result, without its words and without a stream.",
    )

    @model_validator(mode="after")
    def _plain_markup(self) -> Self:
        others = {
            "prefix": self.prefix,
            "alignment": self.alignment,
            "weights": self.weights,
            "split": self.split,
            "nbest": (self.nbest or 1) > 1,
        }
        if self.markup is not None and (given := [name for name, value in others.items() if value]):
            raise ValueError(f"markup goes without {', '.join(given)}: the text alone comes back")
        return self


class SummarizeRequest(WritingRequest):
    """A request for summaries."""

    model_config = example(
        {"text": "Amanda: I baked cookies. Do you want some?\nJerry: Sure!\nAmanda: I'll bring some."}
    )


class NextRequest(LanguagesRequest):
    """A request for the words by which a result may go on."""

    model_config = example({"text": GERMAN, "prefix": "Where is the "})

    text: Text = Field(description="A text, which is one line: usually a sentence.")
    prefix: Text = Field("", description="The beginning of the result, in whole words.")
    count: int = Field(8, ge=1, le=50, description="Number of words.")
    tag: Text | None = Field(None, description="Begin the text with this tag of the model.")


class AlignRequest(LanguagesRequest):
    """A request for links between words of pairs of texts."""

    model_config = example({"sources": [GERMAN], "targets": [ENGLISH]})

    sources: list[Text] = Field(description="Source texts, whose words white space separates.")
    targets: list[Text] = Field(description="A target text for each.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="Link all words with a larger weight; else each word with the largest."
    )

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"expected a target for each of {len(self.sources)} sources")
        return self


class LabelRequest(TextsRequest):
    """A request for tags or labels."""

    model_config = example({"text": "Angela Merkel was born in Hamburg."})

    weights: bool = Field(False, description="Also return the attention weights, if the model has any.")


class ImagesRequest(Request):
    """A request with one image or several, in base64. Files may be sent as multipart instead."""

    model_config = example({"image": PIXEL})

    image: str | None = Field(None, description="The content of a file (PNG, JPEG, ...) in base64.")
    images: list[str] | None = Field(None, description="Several, in the place of `image`.")
    maps: bool = Field(
        False,
        description="Also return each image as the model reads it (`seen`), and where it looks: `maps` of "
        "the network, or of the words of a caption, as PNG files of one colour in base64.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.image is not None and self.images is not None:
            raise ValueError("expected either image or images")
        return self


class CaptionRequest(ImagesRequest, DecodingRequest):
    """A request for texts that are written from images."""

    prefix: Text = Field("", description="The beginning of each text.")
    alignment: bool = Field(False, description="Also return where on the image each word looks.")


class DetectRequest(ImagesRequest):
    """A request for the objects in images."""

    threshold: float = Field(0.25, ge=0, le=1, description="The least score of an object.")


class SegmentRequest(ImagesRequest):
    """A request for the class of each pixel of images."""

    mask: bool = Field(True, description="Also return the mask: a PNG file in base64, with class numbers.")


class GenerateRequest(Request):
    """A request for new images."""

    model_config = example({"count": 4, "seed": 1})

    count: int = Field(1, ge=1, description="Number of images.")
    seed: int = Field(1, ge=0, lt=2**32, description="An image depends on the seed and on its number.")
    label: str | None = Field(None, description="Class of all images; none: each class in turn.")
    truncation: float | None = Field(None, ge=0.01, description="Largest number in the random vectors.")
