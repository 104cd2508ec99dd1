"""How fast the exporter is, beside what one would pick in its place: `make bench`.

Everything is measured in one run, on one machine: what is measured on the first core, what measures it on the second.
"""
