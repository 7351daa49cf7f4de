"""Make tests/model_X.Y: a tiny trained run of the present run format, and what it is expected to say.

    OMP_NUM_THREADS=1 python scripts/make_model_fixture.py

Takes a minute. Run it once for each new format (`checkpoint.FORMAT`): older folders stay as they are, so that
the tests see whether this version still reads them.
"""

import json
from pathlib import Path

import torch

import seq2attn
from seq2attn.checkpoint import FORMAT
from seq2attn.translator import Translator

OVERRIDES = """
    name=model data.dev.limit=100 data.test.limit=100 data.filter.max_length=10
    text.size=400 text.byte_fallback=false text.nfkc=false
    model.encoder.embedding=36 model.encoder.size=36 model.encoder.embedding_dropout=0
    model.decoder.embedding=36 model.decoder.size=36 model.decoder.embedding_dropout=0
    model.decoder.dropout=0 model.decoder.input_feeding=true
    training.learning_rate=0.01 training.schedule.warmup=50 training.batch_tokens=1000 training.max_epochs=null
    training.max_steps=1200 training.validate_every=1200 training.log_every=100
""".split()

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
    """What the model makes of the sentences, as the tests compare it."""
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
