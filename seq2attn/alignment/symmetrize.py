"""Links of two directions made one: symmetrization (Och & Ney 2003; Koehn et al. 2003), and agreement of the
weights of both.

A link is (source, target) in both directions: those of a model from target to source are turned around first
(`reversed_links`). Growing takes all links of a round at once. Moses takes them one after the other, so that
its result depends on the order of the words and of the eight neighbours; here it is the same whichever
direction is called forward, and turns with the sentences.
"""

from collections.abc import Callable, Collection

from jaxtyping import Float
from torch import Tensor

from seq2attn.alignment.word_alignment import AlignmentError, Link

Links = Collection[Link]
AGREED = 0.25  # the weight from which on two directions agree on a link
_NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


def reversed_links(links: Links) -> list[Link]:
    """Return the links from source to target of those from target to source."""
    return [Link(link.target, link.source) for link in links]


def intersection(forward: Links, backward: Links) -> set[Link]:
    """Return the links of both directions."""
    return {*forward} & {*backward}


def union(forward: Links, backward: Links) -> set[Link]:
    """Return the links of either direction."""
    return {*forward} | {*backward}


def grow_diag(forward: Links, backward: Links) -> set[Link]:
    """Return the intersection, grown by links of the union.

    In each round, all links enter that are beside one that is in, also diagonally, and have a word that has
    no link yet; until there are none.
    """
    either, links = union(forward, backward), intersection(forward, backward)
    while new := {link for link in _with_free_words(either, links, any) if _is_beside(link, links)}:
        links |= new
    return links


def grow_diag_final(forward: Links, backward: Links) -> set[Link]:
    """Return `grow_diag`, and all links of the union one of whose words then has no link."""
    links = grow_diag(forward, backward)
    return links | _with_free_words(union(forward, backward), links, any)


def grow_diag_final_and(forward: Links, backward: Links) -> set[Link]:
    """Return `grow_diag`, and all links of the union both of whose words then have no link."""
    links = grow_diag(forward, backward)
    return links | _with_free_words(union(forward, backward), links, all)


def _with_free_words(
    candidates: set[Link], links: set[Link], how_many: Callable[[tuple[bool, bool]], bool]
) -> set[Link]:
    """Return the candidates of whose two words any, or all, are in no link."""
    sources, targets = {link.source for link in links}, {link.target for link in links}
    return {link for link in candidates if how_many((link.source not in sources, link.target not in targets))}


def _is_beside(link: Link, links: set[Link]) -> bool:
    return any(Link(link.source + i, link.target + j) in links for i, j in _NEIGHBOURS)


SYMMETRIZATIONS: dict[str, Callable[[Links, Links], set[Link]]] = {
    "intersection": intersection,
    "union": union,
    "grow-diag": grow_diag,
    "grow-diag-final": grow_diag_final,
    "grow-diag-final-and": grow_diag_final_and,
}


def symmetrized(forward: Links, backward: Links, method: str = "grow-diag") -> list[Link]:
    """Return the sorted links of a pair, from those of two directions, both as (source, target)."""
    if method not in SYMMETRIZATIONS:
        raise AlignmentError(
            f"unknown symmetrization {method!r}: expected one of {', '.join(SYMMETRIZATIONS)}"
        )
    return sorted(SYMMETRIZATIONS[method](forward, backward))


def agreed(
    forward: Float[Tensor, "T S"], backward: Float[Tensor, "S T"], threshold: float = AGREED
) -> list[Link]:
    """Return the sorted links whose weights in two directions have a geometric mean above a threshold.

    Both directions must find a link probable, but none needs to find it the most probable (the product of
    posterior probabilities of Liang et al. 2006). So a word may have several links, or none.
    """
    both = (forward * backward.T).sqrt() > threshold
    return sorted(Link(source, target) for target, source in both.nonzero().tolist())
