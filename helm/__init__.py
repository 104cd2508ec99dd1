"""The Helm chart, and the script that generates parts of it."""
