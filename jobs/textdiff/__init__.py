"""Text classification by language models: one bound or likelihood a class, the likeliest one wins.

Read it in this order: `config` (`typed`) -> `data` (`sources`, `selfmade`) -> `tokenizer` ->
`model`, `gpt2` (`fused`) -> `diffusion` -> `objectives` -> `train` (`batches`, `parallel`,
`utilisation`) -> `checkpoint`, `pretrained` -> `nelbo` -> `classifier` -> `evaluate` (`calibrate`,
`summary`) -> `phases` (`earlier`, `validation`), `verdict` -> `pipeline`. `metrics` and `files` are
what a run says and how it is written down.
`baselines` stands beside it.
"""
