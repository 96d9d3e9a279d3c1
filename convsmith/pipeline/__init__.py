"""The one place that reads a recipe and makes a run.

Names are loaded when they are first used: `convsmith data` begins to read while PyTorch is still being loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PLACES = {
    "Code": "build",
    "ModelFunction": "build",
    "make_plan": "execute",
    "resume": "execute",
    "train": "execute",
    "cross_validate": "folds",
    "plan_first": "folds",
    "resume_folds": "folds",
    "Look": "looking",
    "look": "looking",
    "Listener": "messages",
    "Message": "messages",
    "silent": "messages",
    "plan": "planning",
    "refuse_unknown": "planning",
    "Plan": "planner",
    "Prepared": "preparing",
    "prepare": "preparing",
    "Progress": "progress",
    "print_plan": "progress",
    "Trained": "trained",
    "evaluate_on": "trained",
    "load_published": "trained",
    "load_trained": "trained",
}

__all__ = [
    "Code",
    "Listener",
    "Look",
    "Message",
    "ModelFunction",
    "Plan",
    "Prepared",
    "Progress",
    "Trained",
    "cross_validate",
    "evaluate_on",
    "load_published",
    "load_trained",
    "look",
    "make_plan",
    "plan",
    "plan_first",
    "prepare",
    "print_plan",
    "refuse_unknown",
    "resume",
    "resume_folds",
    "silent",
    "train",
]

if TYPE_CHECKING:
    from convsmith.pipeline.build import Code, ModelFunction
    from convsmith.pipeline.execute import make_plan, resume, train
    from convsmith.pipeline.folds import cross_validate, plan_first, resume_folds
    from convsmith.pipeline.looking import Look, look
    from convsmith.pipeline.messages import Listener, Message, silent
    from convsmith.pipeline.planner import Plan
    from convsmith.pipeline.planning import plan, refuse_unknown
    from convsmith.pipeline.preparing import Prepared, prepare
    from convsmith.pipeline.progress import Progress, print_plan
    from convsmith.pipeline.trained import Trained, evaluate_on, load_published, load_trained


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'convsmith.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"convsmith.pipeline.{_PLACES[name]}"), name)
