"""What runs on the GPU host: standard library only, python >= 3.8. Only `wire` is shared."""
