"""What a recipe may say about data, text, training and decoding, section by section."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from seq2attn.recipe.parts import Choice, Fault, OneOrMore, Part, Section, mistake, told_by_key
from seq2attn.recipe.wording import shown, unknown
from seq2attn.schedules import SCHEDULES

FORMATS = ("parquet", "json", "csv", "text", "arrow")  # that the datasets library reads from data_files
PACKED = (".gz", ".xz", ".bz2")
JSON_LINES = (".jsonl", ".json", ".ndjson")

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(ge=0)]
Weight = Annotated[float, Field(gt=0, description="How often an epoch sees the corpus (training only).")]
Limit = Annotated[int | None, Field(ge=1, description="Take only the first so many pairs.")]
Metric = Literal["bleu", "bleu-zh", "bleu-char", "chrf", "chrf++", "ter", "exact", "wer", "per", "g2p-wer"]
PieceModel = Literal["unigram", "bpe", "char", "word"]

# ---- data -------------------------------------------------------------------------------------------


class SampleCorpus(Section):
    """Sentences that ship with seq2attn."""

    sample: Literal["tatoeba_de_en"] = Field(description="Their name.")
    split: Literal["train", "dev", "test"] | None = Field(None, description="As the corpus is used, if null.")
    weight: Weight = 1.0
    limit: Limit = None

    @property
    def languages(self) -> tuple[str, str]:
        """The two languages that its name ends with."""
        first, second = self.sample.split("_")[-2:]
        return first, second


class FilesCorpus(Section):
    """Two parallel text files, a sentence a line; .gz, .xz and .bz2 are unpacked."""

    files: tuple[str, str] = Field(description="Source and target file.")
    weight: Weight = 1.0
    limit: Limit = None


class TableCorpus(Section):
    """One file with both sides: TSV (columns by number, from 0) or JSONL (columns by dotted key)."""

    table: str = Field(description="A .tsv or .jsonl file, plain or .gz, .xz, .bz2.")
    columns: tuple[Count, Count] | tuple[str, str] = Field((0, 1), description="Source and target column.")
    weight: Weight = 1.0
    limit: Limit = None

    @field_validator("columns", mode="before")
    @classmethod
    def _two_of_a_kind(cls, value: Any) -> Any:
        """One message for the two kinds."""
        if isinstance(value, list | tuple) and {type(column) for column in value} not in ({int}, {str}):
            raise mistake(f"expected two column numbers or two keys, got {shown(value)}")
        return value

    def faults(self) -> Iterator[Fault]:
        """Columns have numbers in TSV, keys in JSONL."""
        suffixes = [suffix for suffix in PurePath(self.table).suffixes if suffix not in PACKED]
        json = bool(suffixes) and suffixes[-1] in JSON_LINES
        if json and isinstance(self.columns[0], int):
            yield Fault("columns", "JSONL has columns by key, as in [source, target]")
        elif not json and isinstance(self.columns[0], str):
            yield Fault("columns", "TSV has columns by number, as in [0, 1]; for keys give a .jsonl file")


class DatasetCorpus(Section):
    """Anything that `datasets.load_dataset` loads."""

    dataset: str = Field(description="A name on the hub, a local folder, or parquet, json, csv, text.")
    config: str | None = Field(None, description="The configuration (for example de-en).")
    revision: str | None = Field(None, description="A branch or commit, often refs/convert/parquet.")
    split: str = Field("train", description="The split, also sliced: train[:10000].")
    data_files: str | list[str] | None = Field(None, description="Files for parquet, json, csv, text.")
    columns: tuple[str, str] = Field(description="Source and target column, dotted: translation.de.")
    streaming: bool = Field(False, description="Read as a stream, so that `limit` need not load it all.")
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """A stream has no length, and so no slices."""
        if self.streaming and "[" in self.split:
            yield Fault("split", "a stream cannot be sliced; use limit, or streaming: false")


class TaskCorpus(Section):
    """Pairs that are made, not read: a source of random letters, and a target whose alignment is known."""

    task: Literal["copy", "reverse", "sort"] = Field(
        description="copy: c a b -> c a b; reverse: c a b -> b a c; sort (every letter tells its place): "
        "c2 a3 b1 -> b c a."
    )
    symbols: Annotated[int, Field(ge=2, le=26)] = Field(12, description="So many letters, from a.")
    lengths: tuple[Size, Size] = Field((3, 6), description="Shortest and longest source, in words.")
    distinct: bool = Field(True, description="No letter twice in a sentence: only one alignment explains it.")
    count: Size = Field(10_000, description="So many pairs, all different.")
    seed: Count = Field(1, description="Of the letters.")
    split: Literal["train", "dev", "test"] | None = Field(
        None, description="As the corpus is used, if null; no sentence is in two splits, whatever the seeds."
    )
    weight: Weight = 1.0
    limit: Limit = None

    def faults(self) -> Iterator[Fault]:
        """Lengths in order, and letters enough."""
        if self.lengths[0] > self.lengths[1]:
            yield Fault(
                "lengths", f"the shortest, {self.lengths[0]}, is more than the longest, {self.lengths[1]}"
            )
        if self.distinct and self.lengths[1] > self.symbols:
            yield Fault(
                "lengths",
                f"{self.lengths[1]} distinct letters of {self.symbols}: raise symbols, or distinct: false",
            )


AnyCorpus = Annotated[
    SampleCorpus | FilesCorpus | TableCorpus | DatasetCorpus | TaskCorpus,
    told_by_key(
        {
            "sample": SampleCorpus,
            "files": FilesCorpus,
            "table": TableCorpus,
            "dataset": DatasetCorpus,
            "task": TaskCorpus,
        }
    ),
]


class FilterRecipe(Section):
    """Which training pairs are left out; each is counted by reason."""

    min_length: Size = Field(1, description="Shortest sentence, in pieces.")
    max_length: Size = Field(200, description="Longest sentence, in pieces.")
    max_ratio: float | None = Field(None, gt=1, description="Largest ratio of the two lengths, in pieces.")
    duplicates: bool = Field(False, description="Keep pairs that occurred before.")

    def faults(self) -> Iterator[Fault]:
        """Lengths in order."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")


class DataRecipe(Section):
    """Where the sentences come from."""

    languages: tuple[str, str] = Field(description="Source and target language, as in [de, en].")
    train: Annotated[list[AnyCorpus], Field(min_length=1), OneOrMore()] = Field(
        description="One corpus or a list of several."
    )
    dev: AnyCorpus = Field(description="The corpus that training is validated on.")
    test: AnyCorpus | None = Field(None, description="The corpus that is scored at the end.")
    filter: FilterRecipe = Field(FilterRecipe(), description="Which training pairs are left out.")
    bad_lines: Literal["stop", "skip"] = Field("stop", description="What a line that cannot be read does.")

    def faults(self) -> Iterator[Fault]:
        """Samples are in the languages asked for; only training weighs its corpora."""
        corpora = (*self.train, self.dev, self.test)
        samples = {corpus.sample: corpus.languages for corpus in corpora if isinstance(corpus, SampleCorpus)}
        for sample, languages in samples.items():
            if sorted(languages) != sorted(self.languages):
                yield Fault("languages", f"{sample} has {list(languages)}, not {list(self.languages)}")
        for use, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weight != 1:
                yield Fault(f"{use}.weight", "only training corpora have weights")


# ---- text -------------------------------------------------------------------------------------------


class SamplingRecipe(Section):
    """Subword regularisation in training (Kudo 2018; BPE-dropout, Provilkov et al. 2020)."""

    nbest: int = Field(-1, ge=-1, description="Sample from so many best segmentations; -1 from all.")
    alpha: float = Field(0.1, ge=0, description="Smoothing (unigram) or dropout rate (bpe).")


class TextRecipe(Section):
    """How sentences become pieces (SentencePiece)."""

    model: PieceModel | tuple[PieceModel, PieceModel] = Field(
        "unigram",
        description="How pieces are found; word: what stands between spaces. Two: of source and target.",
    )
    size: Size = Field(
        8000,
        description="Pieces in the vocabulary (of each language if not joint); of char and word, at most.",
    )
    joint: bool = Field(False, description="One vocabulary for both languages.")
    files: tuple[str, str] | None = Field(None, description="Existing .model files, source and target.")
    lowercase: bool = Field(False, description="Lower-case both sides; translations are lower-case, too.")
    nfkc: bool = Field(True, description="Unicode NFKC normalisation.")
    byte_fallback: bool = Field(
        True, description="Unknown characters become bytes: nothing is lost; not of word models."
    )
    character_coverage: float = Field(
        1.0, gt=0.9, le=1, description="Share of the characters of the text that get pieces of their own."
    )
    sampling: SamplingRecipe | None = Field(None, description="Subword sampling in training.")
    words: Literal["auto", "spaces", "pieces"] = Field(
        "auto",
        description="What a word is in alignments: auto = by spaces, a piece in scripts without spaces.",
    )

    @property
    def models(self) -> tuple[PieceModel, PieceModel]:
        """How the pieces of the source are found, and of the target."""
        return self.model if isinstance(self.model, tuple) else (self.model, self.model)

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_two(cls, value: Any) -> Any:
        """One message for the two ways to say it."""
        names = get_args(PieceModel)
        if isinstance(value, list | tuple) and len(value) != 2:
            raise mistake(f"expected a name, or two for source and target, got {shown(value)}")
        for name in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(name, str):
                raise mistake(f"expected one of {', '.join(names)}, or a list of two, got {shown(name)}")
            if name not in names:
                raise mistake(unknown(name, names))
        return value

    def faults(self) -> Iterator[Fault]:
        """Subword sampling needs models with more than one segmentation; a joint vocabulary is one model."""
        rigid = next((model for model in self.models if model in ("char", "word")), None)
        if self.sampling and rigid:
            yield Fault(
                "sampling", f"a {rigid} model has only one segmentation; use unigram or bpe, or no sampling"
            )
        if self.joint and self.models[0] != self.models[1]:
            yield Fault("model", "a joint vocabulary is one model: give one name, or joint: false")
        if self.sampling and "bpe" in self.models and self.sampling.alpha > 1:
            yield Fault(
                "sampling.alpha", f"is the rate of bpe's dropout, at most 1; got {self.sampling.alpha:g}"
            )
        if self.joint and self.files and self.files[0] != self.files[1]:
            yield Fault(
                "files", "a joint vocabulary is one .model: give the same file twice, or joint: false"
            )


# ---- training ---------------------------------------------------------------------------------------


class EarlyStopping(Section):
    """Stop when validation has not improved."""

    patience: Size = Field(5, description="So many validations without a new best.")


class AttentionLossesRecipe(Section):
    """What attention is taught besides: a loss for each token, times its factor here; 0 = not."""

    coverage: Factor = Field(0.0, description="Looking again where has been looked (See et al. 2017).")
    doubly_stochastic: Factor = Field(
        0.0, description="Slots that are not looked at once in all (Xu et al. 2015)."
    )
    guided: Factor = Field(0.0, description="Looking where gold alignments do not (Garg et al. 2019).")
    reinforce: Factor = Field(
        0.0, description="Drawing slots from which a sentence is unlikely; for hard (Xu et al. 2015)."
    )
    entropy: Factor = Field(0.0, description="Weights that are sure of themselves; goes with reinforce.")
    layer: int | None = Field(
        None,
        description="Of a Transformer, from 0 (-1 = the last), for the first three; null = the last, and for "
        "guided the one before.",
    )
    head: Count | None = Field(
        None, description="For the first three, from 0; null = the mean of all, and for guided the first."
    )

    def factors(self) -> dict[str, float]:
        """The losses that are wanted, by name, and what each is multiplied by."""
        names = ("coverage", "doubly_stochastic", "guided", "reinforce", "entropy")
        return {name: factor for name in names if (factor := getattr(self, name))}

    def faults(self) -> Iterator[Fault]:
        """Losses without one are a mistake."""
        if not self.factors():
            yield Fault("", "names no loss: give one a factor, as in {coverage: 1.0}, or set it to null")


class TrainingRecipe(Section):
    """How the model learns. Steps count updates."""

    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="What updates the weights.")
    learning_rate: float = Field(1e-3, gt=0, description="At its highest.")
    schedule: Annotated[Part, Choice(SCHEDULES)] = Field(
        "constant", validate_default=True, description="How the learning rate goes."
    )
    weight_decay: float = Field(0.0, ge=0, description="Of matrices; vectors (biases, norms) are spared.")
    betas: tuple[Rate, Rate] = Field((0.9, 0.98), description="Of adam and adamw.")
    eps: float = Field(1e-8, gt=0, description="Of adam and adamw.")
    momentum: Rate = Field(0.0, description="Of sgd.")
    clip: float | None = Field(
        1.0, gt=0, description="Largest gradient norm of an update; null = no clipping."
    )
    label_smoothing: Rate = Field(0.0, description="Share of the target spread over the vocabulary.")
    attention_losses: AttentionLossesRecipe | None = Field(None, description="What attention is taught.")
    batch_tokens: Size = Field(4096, description="Tokens of a batch on its longer side, padding included.")
    accumulate: Size = Field(1, description="Batches per update; the loss is exact over all their tokens.")
    max_steps: Size | None = Field(None, description="The end, in updates.")
    max_epochs: Size | None = Field(None, description="The end, in passes through the data.")
    max_minutes: float | None = Field(None, gt=0, description="The end, in minutes of training.")
    validate_every: Size = Field(500, description="Steps between validations (and checkpoints).")
    save_every: Size | None = Field(None, description="Steps between checkpoints, if more often.")
    log_every: Size = Field(50, description="Steps between lines in log.jsonl.")
    metric: Literal["loss", Metric] = Field("bleu", description="What makes a checkpoint the best.")
    metrics: Annotated[list[Metric], Field(min_length=1), OneOrMore()] = Field(
        ["bleu", "chrf", "ter"],
        description="What is measured: at the end, by `score`, and (ter is too slow for it) in validation.",
    )
    early_stopping: EarlyStopping | None = Field(None, description="End when nothing improves.")
    keep_best: Size = Field(1, description="So many best checkpoints stay.")
    keep_last: Size = Field(1, description="So many last checkpoints stay.")
    average: Count = Field(0, description="At the end, average the last so many checkpoints; 0 = no.")
    ema: Rate = Field(0.0, description="Decay of an exponential moving average of the weights; 0 = none.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the computation.")
    deterministic: bool = Field(False, description="Only deterministic kernels (slower on a GPU).")
    tensorboard: bool = Field(
        False, description="Also write TensorBoard logs (pip install seq2attn[tensorboard])."
    )

    def faults(self) -> Iterator[Fault]:
        """An end, and enough checkpoints for what is asked of them."""
        ends = (self.max_steps, self.max_epochs, self.max_minutes, self.early_stopping)
        if all(end is None for end in ends):
            yield Fault("", "needs an end: set max_steps, max_epochs, max_minutes or early_stopping")
        if SCHEDULES[self.schedule.name].needs_total and self.max_steps is None and self.max_epochs is None:
            yield Fault(
                "schedule", f"{self.schedule.name} needs to know the end: set max_steps or max_epochs"
            )
        if self.average > self.keep_last:
            yield Fault(
                "average", f"averages {self.average} checkpoints but keep_last keeps {self.keep_last}"
            )
        if self.average and self.ema:
            yield Fault("average", "average and ema are two ways to one end: choose one")
        if self.momentum and self.optimizer != "sgd":
            yield Fault("momentum", f"belongs to sgd, not to {self.optimizer}")


# ---- decoding ---------------------------------------------------------------------------------------


class DecodingRecipe(Section):
    """How translations are searched for; the defaults of `translate` and `score`."""

    beam: Annotated[int, Field(ge=1, le=500)] = Field(
        5, description="Hypotheses that are followed; 1 = greedy."
    )
    length_normalization: Literal["gnmt", "simple", "none"] = Field(
        "simple", description="gnmt: ((5 + n) / 6)^penalty (Wu et al. 2016); simple: n^penalty."
    )
    length_penalty: float = Field(1.0, ge=0, le=10, description="The penalty in length_normalization.")
    coverage_penalty: float = Field(
        0.0, ge=0, description="Times log min(1, attention) of each source piece (Wu et al. 2016); 0 = none."
    )
    min_length: Count = Field(0, description="Fewest pieces of a translation.")
    max_length: Size = Field(256, description="Most pieces of a translation.")
    max_length_ratio: float = Field(3.0, gt=0, description="Most pieces per source piece (plus 10).")
    max_source: Size = Field(
        1024, description="Most pieces of a source; a longer one is cut, with a warning."
    )
    no_repeat_ngram: Count = Field(0, description="No n-gram of so many pieces twice; 0 = no limit.")
    replace_unknown: bool = Field(False, description="Unknown pieces become the source word looked at most.")
    batch_tokens: Size = Field(4096, description="Source tokens times beam that are worked on at once.")
    validation_beam: Size = Field(1, description="The beam while training.")
    nbest: Size = Field(1, description="So many translations of each sentence, at most the beam.")
    sample: bool = Field(False, description="Draw translations at random instead of searching for the best.")
    temperature: float = Field(1.0, gt=0, description="Of sampling: below 1 is safer, above 1 more varied.")
    top_k: Count = Field(0, description="Sample from the k likeliest pieces; 0 = from all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Sample from the likeliest pieces of this total probability."
    )
    seed: Count = Field(1, description="Of sampling; sentence n of an input always draws the same.")

    def faults(self) -> Iterator[Fault]:
        """Lengths in order."""
        if self.min_length > self.max_length:
            yield Fault("min_length", f"{self.min_length} is more than max_length {self.max_length}")
        if not self.sample and self.nbest > self.beam:
            yield Fault(
                "nbest", f"{self.nbest} translations need a beam of at least {self.nbest}, not {self.beam}"
            )
