# Sizes of the demo: SmolLM2-135M on two cores. docs/log.md says what else was tried.
PYTHON := python
MAKE_BASE := $(PYTHON) $(HERE)base_model.py
ENGINE := auto
REWARDS := accuracy,format,language
MAX_TOKENS := 80
BATCH := 128
KV_GIB := 0.5
MICRO := 1024

PROBLEMS := --test 200 --train 1024 --cold-start 192 --brief 0.5 --terms 3 4 --digits 1 1
SFT_LR := 1e-4
SFT_BATCH := 16
COLD_EPOCHS := 1

RL_LR := 2e-5
GROUP := 8
PROMPTS := 16
RL_STEPS := 12

REJECT_PROMPTS := 512
REJECT_SAMPLES := 2
REJECT_EPOCHS := 1
GENERAL := 32

ALL_LR := 1e-5
ALL_STEPS := 8
ALL_FROM := 1
HELPFUL_WEIGHT := 5
SCENARIOS := --limit 60

RM := --lr 5e-5 --batch-rows 16 --warmup-steps 2 --microbatch-tokens 2048
RM_EPOCHS := 2

STUDENT_LAYERS := 24
DISTILL_PROMPTS := 512
DISTILL_SAMPLES := 1
DISTILL_EPOCHS := 3

EVAL_SAMPLES := 2

ZERO_PROBLEMS := --test 32 --train 160
ZERO_RL := --steps 12 --prompts-per-step 12 --group-size 8 --max-completion-length 96 --temperature 0.7 --no-mask-truncated --lr 2e-5 \
           --beta 0 --loss dapo --advantage mean --microbatch-tokens 1024 --batch-size 96 --kv-cache-gib 0.5
