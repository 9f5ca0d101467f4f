"""The seven abilities and their 28 sub-tasks: each a generator of plans with its label rule."""

from __future__ import annotations

from soundflow.errors import SoundflowError
from soundflow.tasks import agent, chat, instructions, proactive, recognition, translation, understanding
from soundflow.tasks.draw import ABILITIES, Draw, SubTask

MODULES = (recognition, translation, chat, instructions, understanding, proactive, agent)
TASKS: dict[str, SubTask] = {task.name: task for module in MODULES for task in module.TASKS}
"""Name -> sub-task, in the order of the abilities."""


def find(name: str) -> SubTask:
    """Raises SoundflowError."""
    if name not in TASKS:
        raise SoundflowError(f"no sub-task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


__all__ = ["ABILITIES", "TASKS", "Draw", "SubTask", "find"]
