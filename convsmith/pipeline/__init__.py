"""The one place that reads a recipe and makes a run."""

from convsmith.pipeline.build import Code, ModelFunction
from convsmith.pipeline.execute import make_plan, resume, train
from convsmith.pipeline.look import Look, look
from convsmith.pipeline.messages import Listener, Message, silent
from convsmith.pipeline.plan import plan, refuse_unknown
from convsmith.pipeline.planner import Plan
from convsmith.pipeline.prepare import Prepared, prepare
from convsmith.pipeline.progress import Progress, print_plan
from convsmith.pipeline.trained import Trained, evaluate_on, load_published, load_trained

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
    "evaluate_on",
    "load_published",
    "load_trained",
    "look",
    "make_plan",
    "plan",
    "prepare",
    "print_plan",
    "refuse_unknown",
    "resume",
    "silent",
    "train",
]
