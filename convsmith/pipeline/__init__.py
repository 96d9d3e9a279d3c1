"""The one place that reads a recipe and makes a run."""

from convsmith.pipeline.build import Code, ModelFunction
from convsmith.pipeline.execute import make_plan, resume, train
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.plan import Plan, plan
from convsmith.pipeline.progress import Progress, print_plan
from convsmith.pipeline.trained import Trained, evaluate_on, load_trained

__all__ = [
    "Code",
    "Listener",
    "Message",
    "ModelFunction",
    "Plan",
    "Progress",
    "Trained",
    "evaluate_on",
    "load_trained",
    "make_plan",
    "plan",
    "print_plan",
    "resume",
    "silent",
    "train",
]
