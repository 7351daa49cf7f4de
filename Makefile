# On a fresh machine: `make demo`, `make check`. Both make .venv first; PYTHON is its interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/quickstart
export SEQ2ATTN_DATA ?= $(wildcard $(CURDIR)/../shared/data)

.PHONY: demo check quick format docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	@if [ -d $(DEMO) ]; then $(BIN)/seq2attn train quickstart --run $(DEMO) --resume; \
	else $(BIN)/seq2attn train quickstart --run $(DEMO); fi
	@printf '%s\n' "Ich habe Hunger." "Wo ist der Bahnhof?" "Ich glaube nicht, dass Tom heute kommen wird." \
	    > $(DEMO)/new.de
	$(BIN)/seq2attn translate $(DEMO) $(DEMO)/new.de | tee $(DEMO)/new.en
	$(BIN)/seq2attn heatmap $(DEMO) "Ich habe Hunger." -o $(DEMO)/hunger.png
	$(BIN)/seq2attn heatmap $(DEMO) "Ich glaube nicht, dass Tom heute kommen wird." -o $(DEMO)/today.png
	@printf '%s\n' "" "The model, its log and its scores: $(DEMO)/" \
	    "Translations: $(DEMO)/new.en    Heat maps: $(DEMO)/hunger.png, $(DEMO)/today.png" \
	    "Your own sentence: echo 'Guten Morgen!' | $(BIN)/seq2attn translate $(DEMO)"

check: $(VENV)/developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile

# The order of imports, all laws of attention on one mechanism, the tables in the docs, and a training with `check`.
QUICK := $(wildcard tests/test_imports.py tests/laws tests/test_attention_doc.py tests/test_cli_train.py)

quick: $(VENV)/developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pytest $(QUICK) -k "(not test_law or additive-softmax) and not moved"

format: $(VENV)/developing
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/developing
	$(BIN)/python scripts/write_recipe_reference.py
	$(BIN)/python scripts/write_attention_table.py
	$(BIN)/python scripts/write_block_table.py

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# Blocks are tested against those of timm, without its torchvision, which none of them needs.
$(VENV)/developing: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .[dev,ctranslate2,onnx,serve,tensorboard]
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps timm
	touch $@
