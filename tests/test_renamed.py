"""Hooks, fields and methods under their old names: they work, and a warning names the new one."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seq2attn.attention import Attention, MultiHead, Normalizer, Past, Scorer
from seq2attn.attention.interfaces import Normalizer as BaseNormalizer
from seq2attn.attention.normalizers import MoChA, Monotonic, Softmax, nonempty, seen
from seq2attn.attention.pooling import Pooling
from seq2attn.attention.scorers import Additive, Coverage, Dot, ScaledDot
from seq2attn.errors import RenamedWarning

B, T, S, Q = 3, 5, 7, 11


def inputs(module: Attention) -> tuple[Tensor, Any]:
    torch.manual_seed(2)
    query, states = torch.randn(B, T, Q), torch.randn(B, S, Q)
    return query, module.remember(states, torch.ones(B, 1, S, dtype=torch.bool))


def renames(*pairs: tuple[str, str]) -> Any:
    """The warnings that a class body gives, in any order."""

    class Recorder(warnings.catch_warnings):
        def __init__(self) -> None:
            super().__init__(record=True)

        def __enter__(self) -> Any:
            self.caught = super().__enter__()
            warnings.simplefilter("always")

        def __exit__(self, *error: Any) -> None:
            super().__exit__(*error)
            if error[0] is None:
                messages = [str(w.message) for w in self.caught if w.category is RenamedWarning]
                assert len(messages) == len(pairs), messages
                assert all(w.filename == __file__ for w in self.caught)
                for old, new in pairs:
                    assert any(
                        f".{old} is deprecated: use its new name, " in m and m.endswith(f".{new}")
                        for m in messages
                    )

    return Recorder()


def test_a_scorer_with_old_names_works_as_with_the_new():
    with renames(
        ("looks_back", "stateful"),
        ("reads_places", "position_dependent"),
        ("mixes", "allows_talking_heads"),
        ("first", "initial_state"),
        ("note", "update_trace"),
    ):

        class Old(ScaledDot):
            looks_back = reads_places = True
            mixes = False

            def first(self, keys: Tensor) -> Tensor:
                return keys.new_zeros(*keys.shape[:-1], 1)

            def note(self, query: Tensor, keys: Tensor, weights: Tensor, past: Past) -> Tensor:
                return past.trace + weights.mT

            def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
                return query @ keys.mT - past.trace.mT

    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class New(ScaledDot):
            stateful = position_dependent = True
            allows_talking_heads = False

            def initial_state(self, keys: Tensor) -> Tensor:
                return keys.new_zeros(*keys.shape[:-1], 1)

            def update_trace(self, query: Tensor, keys: Tensor, weights: Tensor, past: Past) -> Tensor:
                return past.trace + weights.mT

            def forward(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
                return query @ keys.mT - past.trace.mT

    assert Old.stateful and Old.position_dependent and not Old.allows_talking_heads
    assert Old.looks_back and Old.reads_places and not Old.mixes and New.looks_back
    old, new = (Attention(part(Q, Q), Softmax()) for part in (Old, New))
    assert old.stateful and not old.foldable
    ours, theirs = (module(*inputs(module)) for module in (old, new))
    assert_close(ours.weights, theirs.weights)
    assert_close(ours.past.trace, theirs.past.trace)
    assert (ours.weights - Attention(ScaledDot(Q, Q), Softmax())(*inputs(old)).weights).abs().max() > 1e-3


def test_a_normalizer_with_old_names_works_and_can_call_its_parent_by_them():
    with renames(("move", "step"), ("first", "initial_state")):

        class Twice(Monotonic):
            def first(self, zeros: Tensor) -> Tensor:
                return super().first(zeros)

            def move(self, scores: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
                return super().move(2 * scores, *others)

    with renames(("move", "step")):

        class FourTimes(Twice):
            def move(self, scores: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
                weights, state = super().move(2 * scores, *others)
                return weights, state

    scorer = Dot(Q, Q)
    plain, four = (Attention(scorer, part(noise=0.0)) for part in (Monotonic, FourTimes))
    query, memory = inputs(plain)
    scaled = memory._replace(keys=4 * memory.keys)
    assert_close(four(query, memory).weights, plain(query, scaled).weights)
    step = scaled.keys[..., :1].mT, torch.ones(B, 1, S).bool(), four.initial_state(memory), query[:, :1]
    assert_close(four.normalize.move(*step), four.normalize.step(*step))


def test_samples_shortcuts_and_the_number_of_scores():
    with renames(("energies", "n_scores"), ("draw", "sample"), ("shortcut", "fused")):

        class Old(Softmax):
            energies = 2

            def draw(self, weights: Tensor, past: Past) -> Tensor:
                return weights.square()

            def shortcut(self, dot: Tensor, *others: Any) -> None:
                return None

    assert Old.n_scores == 2 and Old.samples() and Old.draws() and not Softmax.draws()
    assert Old().fused(torch.ones(1)) is None and MoChA.energies == 2
    assert Old.sample is not Normalizer.sample and Normalizer is BaseNormalizer


def test_flags_may_be_set_on_an_instance():
    class Deciding(ScaledDot):
        def __init__(self, follows: bool) -> None:
            super().__init__(Q, Q)
            self.looks_back = follows

    with renames(("looks_back", "stateful")):
        follows = Deciding(True)
    assert follows.stateful and follows.looks_back and Attention(follows, Softmax()).stateful
    assert not Deciding.stateful
    with renames(("looks_back", "stateful")):
        assert not Deciding(False).stateful
    assert not ScaledDot(Q, Q).looks_back and Coverage(Q, Q).looks_back


def test_attributes_may_be_called_so_in_a_new_class():
    class Layered(Softmax):
        def __init__(self) -> None:
            super().__init__()
            self.shortcut, self.energies, self.draw = torch.nn.Linear(2, 3), [4], 5

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layered = Layered()
    assert isinstance(layered.shortcut, torch.nn.Linear) and layered.energies == [4] and layered.draw == 5
    assert layered.n_scores == 1 and layered.sample(torch.ones(1, 1, 1), Past(None, None, 0)) is None


def test_the_key_term_of_additive_scores():
    with renames(("inside", "key_term")):

        class Old(Additive):
            def inside(self, keys: Tensor, past: Past) -> Tensor:
                return 2 * super().inside(keys, past)

    scorer = Old(Q, Q)
    plain = Additive(Q, Q)
    plain.load_state_dict(scorer.state_dict())
    query, memory = inputs(Attention(plain, Softmax()))
    past = Past(None, None, 0)
    assert_close(scorer(query, memory.keys, past), plain(query, 2 * memory.keys, past))


def test_a_mixin_may_have_them():
    class Follows:
        looks_back = True

    with renames(("looks_back", "stateful")):

        class Mixed(Follows, ScaledDot):
            pass

    assert Mixed.stateful and Attention(Mixed(Q, Q), Softmax()).stateful


def test_a_class_with_both_names_is_left_as_it_is():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Both(Scorer):
            def note(self) -> str:
                return "a method of its own"

            def update_trace(self, query: Tensor, keys: Tensor, weights: Tensor, past: Past) -> None:
                return None

    assert Both().note() == "a method of its own"


def test_fields_functions_and_methods():
    zeros = torch.zeros(B, S)
    with pytest.warns(RenamedWarning, match=r"Past.belief is deprecated: .* Past.alignment_state"):
        assert Past(None, None, 0, zeros).belief is zeros
    attention = Attention(Dot(Q, Q), Monotonic())
    _, memory = inputs(attention)
    with pytest.warns(RenamedWarning, match=r"Attention.begin is deprecated: .* Attention.initial_state"):
        assert_close(attention.begin(memory), attention.initial_state(memory))
    heads = MultiHead(1, Q, Q, attention)
    memory = heads.remember(torch.randn(B, S, Q), torch.ones(B, 1, S, dtype=torch.bool))
    with pytest.warns(RenamedWarning, match=r"MultiHead.begin is deprecated: .* MultiHead.initial_state"):
        assert_close(heads.begin(memory), heads.initial_state(memory))
    pooling = Pooling(Attention(Dot(Q, Q), Softmax()), 2, Q)
    _, memory = inputs(pooling.attention)
    with pytest.warns(RenamedWarning, match=r"Pooling.look is deprecated: .* Pooling.pool"):
        assert_close(pooling.look(memory).context, pooling.pool(memory).context)
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.warns(RenamedWarning, match=r"normalizers.seen is deprecated: .* normalizers.nonempty"):
        assert seen(mask).equal(nonempty(mask))
