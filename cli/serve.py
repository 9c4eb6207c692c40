"""Serve a repository of models over gRPC, each session's state kept on the server.

The repository is a folder in Triton's layout, name/version/model.onnx; the newest version of each model is served.
Every option can also be given as an environment variable (CAROUSEL_GRPC_PORT=9001) or in a TOML file (--config);
the command line wins over the environment, the environment over the file.

SIGTERM or Ctrl-C drains: no new work is taken, what is queued is finished, then the ports close.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option a setting, with the setting's own text as help."""
    from service.settings import Settings

    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    for name, field in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(
                option, default=argparse.SUPPRESS, action="store_true", help=field.description
            )
            continue
        default = "" if field.is_required() or field.default is None else f" (default: {field.default})"
        parser.add_argument(
            option, default=argparse.SUPPRESS, metavar=_metavar(name), help=f"{field.description}{default}"
        )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; 1 if work was cut off."""
    import uvloop

    from service.log import configure_logging
    from service.runtime import load_runtime
    from service.server import serve
    from service.settings import Settings

    given = {name: value for name, value in vars(args).items() if name != "config"}
    settings = Settings.load(given, args.config)
    configure_logging(settings.log_format)
    load_runtime()
    return 0 if uvloop.run(serve(settings)) else 1


def _metavar(name: str) -> str:
    return name.rsplit("_", 1)[-1].upper()
