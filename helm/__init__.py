"""The Helm chart, and what makes the parts of it that stand elsewhere already."""
