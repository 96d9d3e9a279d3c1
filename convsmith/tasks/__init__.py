"""What networks are trained to do."""

from convsmith.evaluation import Answers
from convsmith.registry import Entry, Registry
from convsmith.tasks.classification import class_weights, classification
from convsmith.tasks.task import Task

TASKS = Registry("task", [Entry("classification", classification, "one class per image")])

__all__ = ["TASKS", "Answers", "Task", "class_weights", "classification"]
