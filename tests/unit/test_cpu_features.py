"""
What the kernel says of the CPU.
"""

from pathlib import Path

import pytest

from worker.adapters.cpu_features import cpu_features

X86 = "processor\t: 0\nmodel name\t: some\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [(X86, {"fpu", "avx2", "avx512_vnni"}), (ARM, {"fp", "asimd", "asimddp", "bf16"}), ("model: none\n", set())],
)
def test_features_are_those_of_the_first_processor(text: str, found: set[str], tmp_path: Path) -> None:
    """
    Under either name of the line; none where there is no such line.
    """
    (tmp_path / "cpuinfo").write_text(text)

    assert found == cpu_features(tmp_path / "cpuinfo")


def test_no_file_is_no_feature(tmp_path: Path) -> None:
    """
    A system that tells nothing has nothing that we may count on.
    """
    assert frozenset() == cpu_features(tmp_path / "not there")
