"""What is wrong with a run, how sure that is, and the experiment that would show it: rules over records alone."""

from convsmith.diagnosis.evidence import Evidence
from convsmith.diagnosis.gain_rules import weaker
from convsmith.diagnosis.oddities import about_data, clean_checks, leaked, oddities
from convsmith.diagnosis.rules import RULES, diagnose
from convsmith.diagnosis.verdict import Verdict, verdict

__all__ = [
    "RULES",
    "Evidence",
    "Verdict",
    "about_data",
    "clean_checks",
    "diagnose",
    "leaked",
    "oddities",
    "verdict",
    "weaker",
]
