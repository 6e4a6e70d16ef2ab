"""Planners as torch samplers: order, ranks and states. `Planner` makes one of the kinds that are imported here."""

from patchpack.stream.planning.index_planner import IndexPlanner as IndexPlanner
from patchpack.stream.planning.stream_planner import StreamPlanner as StreamPlanner
