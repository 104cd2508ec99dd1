"""The benchmark of the exporter and its peers: `make bench`.

One run on one machine measures everything. The measured programs run on the first core, the programs that measure
them on the second.
"""
