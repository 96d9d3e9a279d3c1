"""Training: a loop that is iterated, and what it is made of."""

from convsmith.training.averaging import Average
from convsmith.training.checkpoint import Checkpoint, Writer, last_checkpoint, load_weights
from convsmith.training.loop import Event, Loop
from convsmith.training.optimizers import OPTIMIZERS
from convsmith.training.processes import SINGLE, Processes, joined
from convsmith.training.random_state import seed_all, untouched
from convsmith.training.schedules import SCHEDULES, Schedule
from convsmith.training.transfer import LinearHead, fit_head, norms, scale_rates
from convsmith.training.unfreezing import Thaw

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SINGLE",
    "Average",
    "Checkpoint",
    "Event",
    "LinearHead",
    "Loop",
    "Processes",
    "Schedule",
    "Thaw",
    "Writer",
    "fit_head",
    "joined",
    "last_checkpoint",
    "load_weights",
    "norms",
    "scale_rates",
    "seed_all",
    "untouched",
]
