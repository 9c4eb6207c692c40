"""The server: many live sequences, one batch, each step exactly once. Needs neither torch nor onnx.

The way of one step: `interceptors` -> `stream` or `api` -> `decode` -> `engine` -> `scheduler` -> `dispatcher` ->
`onnx_backend` -> commit in `engine` -> answer. `session` and `scheduler` are pure: no clock, no loop, no network.
"""
