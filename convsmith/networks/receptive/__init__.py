"""Receptive fields of any network from its recorded graph: exact where they are known, else unknown, with a reason."""

from convsmith.networks.receptive.fields import Axis, Field, Fields, Place, last_map, receptive_fields
from convsmith.networks.receptive.stage_maps import StageMap, stage_maps

__all__ = ["Axis", "Field", "Fields", "Place", "StageMap", "last_map", "receptive_fields", "stage_maps"]
