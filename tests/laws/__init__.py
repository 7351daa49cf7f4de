"""The laws of attention. They are written in support modules, so that other tests can check them, too."""

import pytest

pytest.register_assert_rewrite("laws.inputs", "laws.masks", "laws.past", "laws.weights", "laws.precision")
