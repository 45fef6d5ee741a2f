"""Text classification by masked diffusion: one language model per class, the likeliest class wins.

Read it in this order: `config` -> `data` (`selfmade`) -> `tokenizer` -> `model` -> `diffusion` ->
`train` (`batches`, `checkpoint`) -> `nelbo` -> `evaluate` -> `phases` ->
`pipeline`.
"""
