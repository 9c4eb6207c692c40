"""The `carousel` command: one module a subcommand, each loaded only when it is asked for."""
