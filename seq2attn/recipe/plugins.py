"""Parts that other packages bring along.

A package names a module of its own that adds to SCORERS, NORMALIZERS or POSITIONS:

    [project.entry-points."seq2attn"]
    my_scorers = "my_package.scorers"
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from seq2attn.errors import Seq2attnError

GROUP = "seq2attn"


@cache  # a module is imported once, however many recipes are read
def load_plugins() -> tuple[EntryPoint, ...]:
    """Import the modules that installed packages name, so that recipes may use their parts.

    Raises Seq2attnError, with the package's name, where one cannot be imported.
    """
    found = tuple(entry_points(group=GROUP))
    for point in found:
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            package = point.dist.name if point.dist else point.value
            raise Seq2attnError(
                f"the package {package} brings parts for seq2attn in {point.value}, which cannot be imported "
                f"({error}): mend or uninstall it"
            ) from error
    return found
