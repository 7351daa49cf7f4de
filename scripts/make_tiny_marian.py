"""Make tests/data/marian: tiny random Marian models in the form of Transformers, and what it says of them.

    pip install transformers sentencepiece
    python scripts/make_tiny_marian.py

`joint` is as most OPUS-MT models are; `separate` has two vocabularies and other sizes. `expected.json` has
the ids of texts, and the outputs of beam search; `logits.safetensors` has logits. The tests need no
Transformers.
"""

import io
import json
import lzma
import random
import sys
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, MarianConfig, MarianMTModel, MarianTokenizer

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "seq2attn" / "samples" / "tatoeba_de_en" / "train.tsv.xz"
RULES = "\u2026\t...\n\u00ad\t\n\ufb01\tfi\n\u00a0\t \n\u3000\t \n\uff21\tA\n\uff22\tB\n"
RULES += "A\u0308\t\u00c4\na\u0308\t\u00e4\n"
TEXTS, DECODED = 200, 16
END_BIAS = {True: 5.0, False: 4.5}  # so that some outputs end by themselves, and some at the limit


def nasty(lines: list[str]) -> list[str]:
    """Texts that tokenizers fall over: spaces, controls, unknown scripts, tags, SentencePiece's marks."""
    texts = [
        *("", " ", "  ", "\t", "\n", "a", "▁", "▁▁a", "a▁b", " a", "a ", "a  b", "\u00a0a\u00a0", "a\u3000b"),
        *(">>eng<<", ">>eng<< Hallo", ">>eng<<Hallo", ">>deu<< >>eng<< x", ">>xyz<< Hallo", ">>eng< Hallo"),
        *(">> eng <<", "Hallo >>eng<<", ">>eng<<  zwei", " >>eng<< x", ">><<", ">>eng"),
        *(
            "\u200b",
            "a\u200db",
            "\ufeffa",
            "\u202eabc",
            "e\u0301",
            "\u0301",
            "a\u0308",
            "ﬁn",
            "ＡＢ",
            "½",
            "…",
        ),
        *("日本語", "한국어", "עברית", "عربي", "ไทย", "🙂", "👩‍👩‍👧", "🇩🇪", "𝔘𝔫𝔦", "\U0010ffff", "\ufffd"),
        *(
            "a\x01b",
            "a\x7fb",
            "a\x85b",
            "a\u2028b",
            "\r\n",
            "a\0b",
            "\\n",
            "<b>fett</b>",
            "&amp;",
            "%s",
            "{x}",
        ),
        *(
            "<0x41>",
            "<unk",
            "</s",
            "[UNK]",
            "<mask>",
            "1234567890",
            "1.000,50 €",
            "A" * 300,
            "ß" * 50,
            "?!" * 40,
        ),
    ]
    drawn = random.Random(5)
    letters = "aäbcdeßXYZ 1,.▁>\u00a0日🙂\u0301\n"
    while len(texts) < TEXTS // 2 + 40:
        texts.append("".join(drawn.choice(letters) for _ in range(drawn.randrange(1, 25))))
    return [*texts, *lines][:TEXTS]


def pieces_of(lines: list[str], size: int, kind: str, rules: Path) -> bytes:
    """Train a SentencePiece model; with few rules of normalisation, which would be most of the file."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=size,
        model_type=kind,
        normalization_rule_tsv=str(rules),
        minloglevel=2,
    )
    return model.getvalue()


def numbered(models: list[bytes], seed: int) -> dict[str, int]:
    """Ids as in OPUS-MT: </s>, <unk>, tags and the pieces of both models in another order; some have none."""
    pieces: list[str] = []
    for model in models:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces += [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    pieces = list(dict.fromkeys(pieces))
    random.Random(seed).shuffle(pieces)
    kept = pieces[: int(0.96 * len(pieces))]
    tags = [">>eng<<", ">>deu<<"]
    return {piece: number for number, piece in enumerate(["</s>", "<unk>", *tags, *kept, "<pad>"])}


def network(sizes: tuple[int, int], joint: bool) -> MarianMTModel:
    """A random model whose outputs differ, and end."""
    torch.manual_seed(3)
    pad = sizes[1] - 1
    config = MarianConfig(
        vocab_size=sizes[0],
        decoder_vocab_size=sizes[1],
        share_encoder_decoder_embeddings=joint,
        d_model=16 if joint else 12,
        encoder_layers=2,
        decoder_layers=2 if joint else 1,
        encoder_attention_heads=4 if joint else 2,
        decoder_attention_heads=2 if joint else 3,
        encoder_ffn_dim=24,
        decoder_ffn_dim=20,
        activation_function="swish" if joint else "relu",
        scale_embedding=True,
        static_position_embeddings=True,
        max_position_embeddings=64,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        dropout=0.1,
    )
    model = MarianMTModel(config).eval()
    model.generation_config = GenerationConfig(
        max_length=20,
        num_beams=4,
        renormalize_logits=joint,
        bad_words_ids=[[pad]],
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        model.final_logits_bias.normal_()
        model.final_logits_bias[:, 0] += END_BIAS[joint]
        for table in {model.model.encoder.embed_tokens, model.model.decoder.embed_tokens}:
            table.weight[-1] = 0
    return model


def make(folder: Path, kinds: tuple[str, str], joint: bool, rules: Path) -> None:
    """Write one model, and what is expected of it."""
    rows = [line.split("\t") for line in lzma.decompress(SAMPLE.read_bytes()).decode().splitlines()[:4000]]
    sides = [[row[0] for row in rows], [row[1] for row in rows]]
    models = [
        pieces_of(lines, size, kind, rules)
        for lines, size, kind in zip(sides, (190, 170), kinds, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in zip(("source.spm", "target.spm"), models, strict=True):
        (folder / name).write_bytes(model)
    maps = [numbered(models, 1)] if joint else [numbered(models[:1], 1), numbered(models[1:], 2)]
    for name, ids in zip(("vocab.json", "target_vocab.json"), maps, strict=False):
        (folder / name).write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    given: dict[str, Any] = {} if joint else {"target_vocab_file": str(folder / "target_vocab.json")}
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"),
        source_lang="de", target_lang="en", separate_vocabs=not joint, **given,
    )  # fmt: skip
    model = network((len(maps[0]), len(maps[-1])), joint)
    model.save_pretrained(folder)
    languages = {"source_lang": "de", "target_lang": "en", "separate_vocabs": not joint}
    (folder / "tokenizer_config.json").write_text(json.dumps(languages))
    texts = nasty(sides[0])
    expected: dict[str, Any] = {
        "texts": texts,
        "source": [tokenizer(text)["input_ids"] for text in texts],
        "target": [tokenizer(text_target=text)["input_ids"] for text in texts],
        "decoded": [],
    }
    sources = [text for text in sides[0][100:] if len(text) < 40][:DECODED]
    special = (model.config.pad_token_id, model.config.eos_token_id)  # as in the target
    for text in sources:
        batch = tokenizer([text], return_tensors="pt")
        found = model.generate(
            **batch, num_return_sequences=4, output_scores=True, return_dict_in_generate=True
        )
        expected["decoded"].append(
            {
                "source": text,
                "ids": [
                    [i for i in ids if i != model.config.pad_token_id] for ids in found.sequences.tolist()
                ],
                "scores": found.sequences_scores.tolist(),
                "texts": [
                    tokenizer.decode(
                        [i for i in ids if i not in special],
                        skip_special_tokens=True,
                        clean_up_tokenization_spaces=False,
                    )
                    for ids in found.sequences.tolist()
                ],
            }
        )
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=True, indent=0))
    batch = tokenizer(sources[:4], return_tensors="pt", padding=True)
    target = torch.randint(1, len(maps[-1]) - 1, (4, 6), generator=torch.Generator().manual_seed(1))
    target[:, 0] = model.config.decoder_start_token_id
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=target).logits
    tensors = {
        "tokens": batch["input_ids"],
        "mask": batch["attention_mask"],
        "target": target,
        "logits": logits,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "logits.safetensors")


def main() -> None:
    """Make both models."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "data" / "marian"
    data.mkdir(parents=True, exist_ok=True)
    rules = data / "rules.tsv"
    rules.write_text(
        "".join(
            " ".join(f"{ord(letter):X}" for letter in before)
            + "\t"
            + " ".join(f"{ord(letter):X}" for letter in after)
            + "\n"
            for before, after in (line.split("\t") for line in RULES.splitlines())
        ),
        encoding="utf-8",
    )
    make(data / "joint", ("unigram", "unigram"), True, rules)
    make(data / "separate", ("bpe", "unigram"), False, rules)
    rules.unlink()


if __name__ == "__main__":
    main()
