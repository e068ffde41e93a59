"""What ``make bench`` measures: one module for each kind of figure, each beside its peer.

Chosen: everything runs in one process against a real ``fermata up``, and each figure's peer (bare LangGraph, bare onnxruntime,
bare Chroma) is measured in turns with it, so that both see the same machine. Refused: limits on a timing, for they fail on a
busy machine and hide a slow change on an idle one; and figures kept from an earlier run, for only ratios of one run compare.
"""
