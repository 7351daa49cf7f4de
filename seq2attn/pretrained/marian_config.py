"""The configuration of a Marian model in the form of Transformers, as sections of a recipe.

Every key of `config.json` and `generation_config.json` is either read, or has no effect on results, or may
have one value only. Any other key or value is refused by its name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seq2attn.runtime.files import read
from seq2attn.training.version_file import RunError

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu"}
_LANGUAGES = re.compile(r"opus-mt-(?:tc-)?(?:big-|base-)?([a-z_]+)-([a-z_]+)$", re.IGNORECASE)

_SIZES = (
    "d_model",
    "vocab_size",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_position_embeddings",
)
_SPECIAL = ("pad_token_id", "decoder_start_token_id", "eos_token_id", "forced_eos_token_id", "bad_words_ids")
_READ = {*_SIZES, *_SPECIAL, "decoder_vocab_size", "share_encoder_decoder_embeddings", "activation_function"}
_READ |= {"dropout", "attention_dropout", "activation_dropout", "num_hidden_layers"}
_READ |= {"num_beams", "length_penalty", "max_length", "no_repeat_ngram_size", "renormalize_logits"}
_NONE_OR_FALSE: tuple[Any, ...] = (None, False)
_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("marian",),
    "is_encoder_decoder": (True,),
    "static_position_embeddings": (True,),
    "scale_embedding": (True,),
    "tie_word_embeddings": (True,),
    "early_stopping": _NONE_OR_FALSE,
    "min_length": (None, 0),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "num_return_sequences": (None, 1),
    "num_beam_groups": (None, 1),
    "guidance_scale": (None, 1.0),
    "chunk_size_feed_forward": (None, 0),
    "pruned_heads": (None, {}),
    "prefix": (None, ""),
}
_ONLY |= dict.fromkeys(
    ("normalize_before", "normalize_embedding", "add_final_layer_norm", "is_decoder", "add_cross_attention"),
    _NONE_OR_FALSE,
)
_ONLY |= dict.fromkeys(
    ("tie_encoder_decoder", "force_bos_token_to_be_generated", "do_sample", "do_blenderbot_90_layernorm"),
    _NONE_OR_FALSE,
)
_ONLY |= dict.fromkeys(
    ("encoder_layerdrop", "decoder_layerdrop", "diversity_penalty", "encoder_no_repeat_ngram_size"), (None, 0)
)
_ONLY |= dict.fromkeys(
    (
        *(
            "forced_bos_token_id",
            "suppress_tokens",
            "begin_suppress_tokens",
            "sequence_bias",
            "max_new_tokens",
        ),
        *("min_new_tokens", "exponential_decay_length_penalty", "force_words_ids", "constraints", "max_time"),
        *("stop_strings", "forced_decoder_ids", "cross_attention_hidden_size", "task_specific_params"),
        *("penalty_alpha", "watermarking_config", "quantization_config"),
    ),
    (None,),
)
_NO_EFFECT = {
    *("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "tokenizer_class"),
    *("finetuning_task", "_num_labels", "num_labels", "id2label", "label2id", "problem_type"),
    *("use_cache", "init_std", "classif_dropout", "classifier_dropout", "extra_pos_embeddings"),
    *("add_bias_logits", "bos_token_id", "sep_token_id", "output_past", "gradient_checkpointing"),
    *("return_dict", "torchscript", "use_bfloat16", "tf_legacy_loss", "_attn_implementation_autoset"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "cache_implementation"),
    *("return_dict_in_generate", "_from_model_config", "remove_invalid_values", "low_memory", "top_h"),
    *("temperature", "top_k", "top_p", "typical_p", "min_p", "epsilon_cutoff", "eta_cutoff"),  # of samples
}


class MarianConfig(NamedTuple):
    """What a model's configuration says, checked."""

    config: Mapping[str, Any]  # with the settings of generation
    joint: bool  # whether source and target share one table of embeddings
    languages: tuple[str, str]

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of the source and the target vocabulary."""
        source = self.config["vocab_size"]
        return source, source if self.joint else self.config.get("decoder_vocab_size") or source

    def special(self) -> Iterator[tuple[str, str, int]]:
        """Yield keys of special pieces of the target, with the piece and the id that the key gives it."""
        yield "eos_token_id", "</s>", _single(self.config["eos_token_id"])
        yield "pad_token_id", "<pad>", self.config["pad_token_id"]

    def model(self) -> dict[str, Any]:
        """Return the recipe's section `model`."""
        sides = {side: self._part(side) for side in ("encoder", "decoder")}
        heads, dropout = self.config["decoder_attention_heads"], self.config.get("attention_dropout", 0.0)
        sides["decoder"]["cross_attention"] = {"heads": heads, "dropout": float(dropout)}
        return {**sides, "tied": "all" if self.joint else "decoder"}

    def _part(self, side: str) -> dict[str, Any]:
        config = self.config
        attention_dropout = float(config.get("attention_dropout", 0.0))
        return {
            "kind": "transformer",
            "size": config["d_model"],
            "layers": config[f"{side}_layers"],
            "feed_forward": config[f"{side}_ffn_dim"],
            "activation": ACTIVATIONS[config["activation_function"]],
            "norm": "post",
            "positions": {"name": "sinusoidal", "layout": "halves"},
            "self_attention": {"heads": config[f"{side}_attention_heads"], "dropout": attention_dropout},
            "dropout": float(config.get("dropout", 0.1)),
            "feed_forward_dropout": float(config.get("activation_dropout", 0.0)),
        }

    def decoding(self) -> dict[str, Any]:
        """Return the recipe's section `decoding`: the outputs are those of `generate` of Transformers."""
        longest = self.config["max_position_embeddings"]
        # Theirs counts the first piece and </s>.
        max_length = max(1, min(self.config.get("max_length") or longest, longest) - 2)
        return {
            "beam": self.config.get("num_beams") or 1,
            "length_penalty": float(self.config.get("length_penalty", 1.0)),
            "no_repeat_ngram": self.config.get("no_repeat_ngram_size") or 0,
            "renormalize": bool(self.config.get("renormalize_logits")),
            "search_end": "estimated",
            "max_length": max_length,
            "max_length_ratio": float(max_length),  # only max_length limits outputs
            "max_source": longest - 1,
        }


def read_config(folder: Path, name: str) -> MarianConfig:
    """Return the configuration of a model. RunError, with all faults, for what is not understood.

    name: of the model, which may tell its languages.
    """
    config, generation = _read(folder / CONFIG), _read(folder / GENERATION, required=False)
    faults = [
        f"{file}: {fault}"
        for file, values in ((CONFIG, config), (GENERATION, generation))
        for fault in _not_understood(values)
    ]
    merged = {**config, **generation}
    faults += [
        f"{GENERATION}: {key}: {json.dumps(generation[key])} ({CONFIG} has {json.dumps(config[key])})"
        for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id")
        if key in config and key in generation and _single(config[key]) != _single(generation[key])
    ]
    faults += [] if faults else [f"{CONFIG}: {fault}" for fault in _missing_or_wrong(merged)]
    if faults:
        raise RunError(
            f"{folder}: this model cannot be imported, as not all of its configuration is understood: "
            f"{'; '.join(faults)}"
        )
    tokenizer = _read(folder / TOKENIZER, required=False)
    named = _LANGUAGES.search(name)
    languages = [
        tokenizer.get(key) or (named[number] if named else side)
        for number, (key, side) in enumerate((("source_lang", "source"), ("target_lang", "target")), 1)
    ]
    joint = merged.get("share_encoder_decoder_embeddings") is not False
    return MarianConfig(merged, joint, (str(languages[0]), str(languages[1])))


def _not_understood(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        shown = f"{key}: {json.dumps(value)[:80]}"
        if key in _ONLY:
            if value not in _ONLY[key]:
                yield f"{shown} (expected {json.dumps(_ONLY[key][-1])})"
        elif key not in _READ and key not in _NO_EFFECT:
            yield f"{shown} (an unknown key)"


def _missing_or_wrong(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield faults of the keys that are read, those that are missing included."""
    for key in ("model_type", "scale_embedding"):  # without them, Transformers assumes something else
        if key not in config:
            yield f"{key} is missing"
    for key in _SIZES:
        if type(config.get(key)) is not int or config[key] < 1:
            yield f"{key}: {json.dumps(config.get(key))} (expected a number of at least 1)"
    if config.get("activation_function") not in ACTIVATIONS:
        value = json.dumps(config.get("activation_function"))
        yield f"activation_function: {value} (expected {', '.join(ACTIVATIONS)})"
    pad, end = config.get("pad_token_id"), _single(config.get("eos_token_id"))
    for key, number in (("pad_token_id", pad), ("eos_token_id", end)):
        if type(number) is not int:
            yield f"{key}: {json.dumps(config.get(key))} (expected the id of a piece)"
    expected: dict[str, tuple[Any, ...]] = {
        "decoder_start_token_id": (pad,),
        "forced_eos_token_id": (end, [end], None),
        "bad_words_ids": ([[pad]], None),
        "num_hidden_layers": (config.get("encoder_layers"), None),
    }
    for key, values in expected.items():
        if config.get(key) not in values:
            yield f"{key}: {json.dumps(config.get(key))} (expected {json.dumps(values[0])})"


def _single(ids: Any) -> Any:
    """Return an id, which may be given in a list."""
    return ids[0] if isinstance(ids, list) and len(ids) == 1 else ids


def _read(path: Path, required: bool = True) -> dict[str, Any]:
    """Return a JSON file of names and values; nothing if it is missing and need not be there."""
    try:
        values = json.loads(read(path))
    except FileNotFoundError as error:
        if not required:
            return {}
        found = sorted(file.name for file in path.parent.glob("*"))[:20] if path.parent.is_dir() else []
        there = f"it has {', '.join(found)}" if found else "it is no folder, or empty"
        raise RunError(
            f"{path.parent} has no {path.name}: expected a Marian model in the form of Transformers; {there}"
        ) from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error or 'nested too deeply'}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} is damaged: expected names and values, got {type(values).__name__}")
    return values
