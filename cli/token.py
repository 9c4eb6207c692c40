"""Make a token for somebody who is to call the service.

The token is printed once, on standard output, and is kept nowhere: hand it over. On standard error is what belongs into
the file that `carousel serve --identities` reads: its hash, from which nobody can make the token.

  carousel token alice > alice.token
  carousel stream --token-file alice.token
"""

import argparse
import json
import re
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("owner", metavar="OWNER", help="whose sessions they will be")


def run(args: argparse.Namespace) -> int:
    """Print a token and the lines for the file.

    Raises:
        CarouselError: nobody can be called that.
    """
    from service.identities import check_owner
    from service.tokens import hash_of, new_token

    check_owner(args.owner)
    token = new_token()
    print(token)
    print(
        "# if the table is there already, add the hash to its tokens",
        f"[{_key(args.owner)}]",
        f'tokens = ["{hash_of(token)}"]',
        sep="\n",
        file=sys.stderr,
    )
    return 0


def _key(owner: str) -> str:
    """As it is written in TOML."""
    bare = re.fullmatch("[A-Za-z0-9_-]+", owner)
    return owner if bare else json.dumps(owner, ensure_ascii=False)
