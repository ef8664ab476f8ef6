"""r1: the DeepSeek-R1 recipe as shell commands."""
