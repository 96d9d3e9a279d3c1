"""Training: a loop that is iterated, and what it is made of."""

from convsmith.training.averaging import Average
from convsmith.training.checkpoint import Checkpoint, Writer, last_checkpoint, load_weights
from convsmith.training.loop import Event, Loop
from convsmith.training.optimizers import OPTIMIZERS
from convsmith.training.processes import SINGLE, Processes, joined, leave
from convsmith.training.random_state import seed_all, untouched
from convsmith.training.schedules import SCHEDULES, Schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SINGLE",
    "Average",
    "Checkpoint",
    "Event",
    "Loop",
    "Processes",
    "Schedule",
    "Writer",
    "joined",
    "last_checkpoint",
    "leave",
    "load_weights",
    "seed_all",
    "untouched",
]
