"""Alerting rules, and the script that writes their table into the documentation."""
