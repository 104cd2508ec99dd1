"""The benchmark of the exporter and its peers: `make bench`.

One run on one machine measures everything. The measured programs run on the first core, the programs that measure
them on the second. Programs that are compared are measured in rounds (`rounds.py`).
"""
