#!/usr/bin/env bash
# What bench/RESULTS.md says of a GPU, measured again: one JSON line each on stdout, logs beside them.
#
#     bash bench/on_gpu.sh TOKENIZER ROWS PYTHON [OUT]
#
# TOKENIZER: folder of any tokenizer, for models with random weights;  ROWS: gsm8k_train.jsonl;  PYTHON: an interpreter that has TRL (and
# vLLM, for the comparison in which both sides sample with it);  OUT: folder for the logs. About 20 minutes on an H200, most of them loading.
# PEAK: TFLOP/s of the GPU in dense bfloat16 (989, an H100 or H200).
set -uo pipefail
[ $# -ge 3 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
tokenizer=$1 rows=$2 python=$3 out=${4:-gpu-results}
here=$(dirname "$0")
mkdir -p "$out"
failed=0

measure() {  # NAME SCRIPT ARGUMENT...: ends by itself after ten minutes, and the next one is measured all the same
    local name=$1 script=$2
    shift 2
    echo "== $name" >&2
    if timeout 600 python "$here/$script" "$@" > "$out/$name.json" 2> "$out/$name.log"; then
        tail -n 1 "$out/$name.json"
    else
        echo "$name failed: $out/$name.log" >&2
        failed=1
    fi
}

small=(--model qwen2.5-0.5b --tokenizer "$tokenizer" --rows "$rows" --environment "$python" --prompts 8 --group 8
       --max-completion-length 192 --steps 4 --microbatch-tokens 32768)
large=(--model qwen2.5-1.5b --tokenizer "$tokenizer" --rows "$rows" --environment "$python")

measure sft-mfu train_step.py qwen2.5-1.5b --shape sft --length 8192 --rows 16 --dtype bfloat16 --pack-length 8192 \
    --microbatch-tokens 16384 --peak-tflops "${PEAK:-989}"
measure sft-vs-trl sft_vs_trl.py "${large[@]}" --length 8192 --tokens 65536 --steps 3 --microbatch-tokens 16384
measure grpo-engine-for-engine grpo_vs_trl.py "${small[@]}" --engine transformers
measure grpo-1.5b grpo_vs_trl.py "${large[@]}" --engine transformers --prompts 16 --max-completion-length 512 --steps 3 \
    --microbatch-tokens 32768 --trl-batch 32
if "$python" -c 'import vllm' 2> /dev/null; then
    measure grpo-vllm grpo_vs_trl.py "${small[@]}" --engine vllm --trl-engine vllm --max-model-len 1024
    measure grpo-vllm-sleep grpo_vs_trl.py "${small[@]}" --engine vllm --trl-engine vllm --max-model-len 1024 --engine-sleep
else
    echo "no vLLM in $python: the comparison in which both sides sample with it is left out" >&2
fi
measure longest longest_completion.py --tokenizer "$tokenizer" --memory-gib 40 --within 8192 --environment "$python"
exit $failed
