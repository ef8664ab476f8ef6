# The same recipe on a random model of two layers: shows that every command of the recipe runs, nothing about learning.
PYTHON := python
MAKE_BASE := $(PYTHON) -c "import sys; from tests.tiny import tiny_model; tiny_model(sys.argv[1], hidden=128, layers=3)"
ENGINE := transformers
REWARDS := format,language
MAX_TOKENS := 96
BATCH := 16
KV_GIB := 0.2
MICRO := 2048

PROBLEMS := --test 6 --train 24 --cold-start 16 --terms 2 2 --digits 1 1
SFT_LR := 1e-2
SFT_BATCH := 8
COLD_EPOCHS := 20

RL_LR := 1e-4
GROUP := 2
PROMPTS := 2
RL_STEPS := 2

REJECT_PROMPTS := 12
REJECT_SAMPLES := 2
REJECT_EPOCHS := 30
GENERAL := 2

ALL_LR := 1e-4
ALL_STEPS := 2
ALL_FROM := 1
HELPFUL_WEIGHT := 2
SCENARIOS := --limit 3

RM := --lr 1e-3 --batch-rows 64
RM_EPOCHS := 1

STUDENT_LAYERS := 2
DISTILL_PROMPTS := 12
DISTILL_SAMPLES := 1
DISTILL_EPOCHS := 1

EVAL_SAMPLES := 2

ZERO_PROBLEMS := --test 4 --train 8
ZERO_RL := --steps 2 --prompts-per-step 2 --group-size 2 --max-completion-length 24 --lr 1e-4 --beta 0
