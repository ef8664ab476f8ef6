"""The code reward: programs are run in a sandbox and judged outside of it. `docs/code-rewards.md` tells the whole story."""
