"""POSITIONS: all positions, by the names that they have in recipes."""

from collections.abc import Iterator, Mapping

from seq2attn.attention.positions.absolute import Learned, NoPosition, Position, Rotary, Sinusoidal
from seq2attn.attention.positions.grid import Axial, Learned2d, Rotary2d, Sinusoidal2d, Swin
from seq2attn.attention.positions.relative import T5, Alibi, Distance, Shaw
from seq2attn.registry import Registry

POSITIONS: Registry[type[Position] | type[Distance]] = Registry("POSITIONS", Position, Distance)
POSITIONS |= {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "rotary": Rotary,
    "alibi": Alibi,
    "t5": T5,
    "shaw": Shaw,
    "sinusoidal_2d": Sinusoidal2d,
    "learned_2d": Learned2d,
    "rotary_2d": Rotary2d,
    "swin": Swin,
    "axial": Axial,
    "none": NoPosition,
}


class _OfSequences(Mapping[str, type[Position] | type[Distance]]):
    """The positions of POSITIONS that need no grid, also those that are added later."""

    def __getitem__(self, name: str) -> type[Position] | type[Distance]:
        if (kind := POSITIONS[name]).needs_grid:
            raise KeyError(name)
        return kind

    def __iter__(self) -> Iterator[str]:
        return (name for name, kind in POSITIONS.items() if not kind.needs_grid)

    def __len__(self) -> int:
        return sum(1 for _ in self)


SEQUENCE_POSITIONS = _OfSequences()
