"""
Laws of a bank's columns: taken apart and put together in any way, they stay the same.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank_builders import some_columns
from worker.bank.vectors import (
    StoredVectors,
    from_tensors,
    joined,
    shape_problems,
    single_rows,
    stacked,
    value_problems,
)
from worker.views import ViewSpec

DIM = 6


@st.composite
def columns(draw: st.DrawFn) -> StoredVectors:
    """
    Any columns of up to twelve references with up to three crops each.
    """
    crops = draw(st.lists(st.integers(0, 3), max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return some_columns(rng.normal(size=(len(crops), DIM)), crops)


def assert_equal(one: StoredVectors, other: StoredVectors) -> None:
    """
    Byte for byte, types and shapes included.
    """
    for name, column in one.tensors().items():
        assert (column.dtype, column.shape) == (other.tensors()[name].dtype, other.tensors()[name].shape)
        assert column.tobytes() == other.tensors()[name].tobytes()


@given(columns())
@settings(deadline=None)
def test_row_by_row_is_the_whole(given_columns: StoredVectors) -> None:
    """
    A workshop's part that is read back holds what was put into it.
    """
    assert_equal(stacked(list(single_rows(given_columns)), DIM), given_columns)


@given(columns(), st.data())
@settings(deadline=None)
def test_parts_are_the_whole(given_columns: StoredVectors, data: st.DataObject) -> None:
    """
    Wherever columns are cut, joining the pieces gives them back, owners of crops included.
    """
    rows = list(single_rows(given_columns))
    cut = data.draw(st.integers(0, len(rows)))

    assert_equal(joined(stacked(rows[:cut], DIM), stacked(rows[cut:], DIM)), given_columns)


@given(columns())
@settings(deadline=None)
def test_sound_columns_have_no_problems(given_columns: StoredVectors) -> None:
    """
    Neither in their shapes nor in their numbers.
    """
    tensors = given_columns.tensors()

    assert shape_problems(tensors, len(given_columns), DIM) == []
    assert list(value_problems(from_tensors(tensors), ViewSpec(native_crops=3, realism=True))) == []


@pytest.mark.parametrize("name", ["vectors", "native", "native_owner", "norms", "realism", "shift"])
def test_every_column_is_needed_in_its_type(name: str) -> None:
    """
    One that is missing or of another type is named.
    """
    whole = some_columns(np.eye(DIM), [1] * DIM).tensors()
    missing = {other: tensor for other, tensor in whole.items() if other != name}
    of_another_type = {**whole, name: whole[name].astype(np.float64)}

    assert any(f"{name} is missing" in problem for problem in shape_problems(missing, DIM, DIM))
    assert any(f"{name} is float64" in problem for problem in shape_problems(of_another_type, DIM, DIM))
