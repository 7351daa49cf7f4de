"""python -m seq2attn: the command line, where what a user can mend is one message and no traceback."""

import os
import sys

from seq2attn.cli import cli
from seq2attn.errors import Seq2attnError


def main() -> None:
    """Run the command line."""
    # OpenMP's threads spin while they wait; where anything else wants the cores, that makes each step several
    # times slower. It reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        cli(prog_name="seq2attn")
    except Seq2attnError as error:
        print(f"seq2attn: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
