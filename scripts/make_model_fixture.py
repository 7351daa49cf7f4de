"""Make tests/model_X.Y: a tiny trained run of the present run format, and its expected translations.

    OMP_NUM_THREADS=1 python scripts/make_model_fixture.py

Takes a minute. Run it once for each new format (`run_folder.FORMAT`): older folders stay as they are, so that
the tests see whether this version still reads them.
"""

import json
from pathlib import Path

import torch

import seq2attn
from seq2attn.inference.translator import Translator
from seq2attn.training.run_folder import FORMAT

OVERRIDES = [
    "name=model",
    "data.dev.limit=100",
    "data.test.limit=100",
    "data.filter.max_length=10",
    "text={size: 400, byte_fallback: false, nfkc: false}",
    "model.encoder={kind: recurrent, embedding: 36, size: 36}",
    "model.decoder={kind: recurrent, order: luong, input_feeding: true, embedding: 36, size: 36}",
    "model.decoder.attention.score=additive",
    "training={optimizer: adam, learning_rate: 0.01, schedule: {name: cosine, warmup: 50}, max_steps: 1200}",
    "training.batch_tokens=1000",
    "training.validate_every=1200",
    "training.log_every=100",
]

SENTENCES = [
    "Tom ist nicht hier.",
    "Wo ist Tom?",
    "Das ist mein Buch.",
    "",
    "Ich weiß nicht.",
    "Ich liebe dich.",
    "Wir haben Zeit.",
    "Tom wohnt nicht in Boston, und er spricht kein Deutsch.",
]


def expected(model: Translator) -> list[dict[str, str | float]]:
    """Return the translations of the sentences, as the tests compare them."""
    return [
        {"source": source, "text": said.text, "score": said.score, "alignment": said.pharaoh()}
        for source, said in zip(SENTENCES, model.translate(SENTENCES), strict=True)
    ]


def main() -> None:
    """Train, tidy up, write down."""
    torch.set_num_threads(1)
    folder = Path(__file__).parents[1] / "tests" / f"model_{FORMAT}"
    run = seq2attn.train("quickstart", folder / "run", OVERRIDES, device="cpu").run
    (run / "training_state.pt").unlink()
    entries = expected(seq2attn.load(run, device="cpu"))
    text = json.dumps(entries, ensure_ascii=False, indent=1) + "\n"
    (folder / "expected.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
