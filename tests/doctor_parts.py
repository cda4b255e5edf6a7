"""
Parts that `touchstone doctor` looks at, there or broken as a test wants them, and checks that look as it says.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from worker.doctor import model
from worker.doctor.finding import Check, Finding, examine
from worker.doctor.parts import Part, Parts
from worker.errors import CannotStart
from worker.settings.tree import Settings

T = TypeVar("T")


def there(value: T) -> Part[T]:
    """
    A part that opens.
    """
    return Part("a part", lambda: value)


def broken(check: str) -> Part[Any]:
    """
    A part that does not open.
    """

    def fail() -> Any:  # noqa: ANN401 - it never returns
        raise CannotStart(f"{check} is not there")

    return Part(check, fail)


def some_parts(**changes: Part[Any]) -> Parts:
    """
    Parts of which those given are there, and no other.
    """
    names = {"cluster": "kafka", "redis": "redis", "encoder": "weights", "policy": "policy"}
    names |= {"release": "bank", "bank": "bank"}
    parts = {name: broken(check) for name, check in names.items()} | changes
    return Parts(**parts)


def check_of(look: Callable[[], Finding], *, timeout_s: float = 20.0) -> Check:
    """
    A check that looks so.
    """
    return Check("one", look, "do this", timeout_s)


def raises(fault: Exception) -> Callable[[], Finding]:
    """
    A look that raises.
    """

    def look() -> Finding:
        raise fault

    return look


def statuses(settings: Settings, parts: Parts) -> dict[str, tuple[str, str]]:
    """
    Status and text of each check of what is judged with.
    """
    checks = model.model_checks(settings, parts)
    return {checked.name: (checked.finding.status, checked.finding.text) for checked in examine(checks)}
