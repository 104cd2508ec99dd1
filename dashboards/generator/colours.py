"""Colours that people tell apart who see no red, no green or no blue: Okabe and Ito's, and two greys.

They never stand alone: what they say is said in words beside them.
"""

GREEN, YELLOW, VERMILLION, SKY, BLUE, ORANGE, PURPLE = (
    "#009E73",
    "#F0E442",
    "#D55E00",
    "#56B4E9",
    "#0072B2",
    "#E69F00",
    "#CC79A7",
)
DARK_GREY, LIGHT_GREY = "#595959", "#A6A6A6"

TONES = {"good": GREEN, "warn": YELLOW, "bad": VERMILLION, "busy": SKY, "quiet": DARK_GREY}
"""The status page's tones. For areas: yellow is no colour for a line on white."""

LINES = (BLUE, ORANGE, SKY, VERMILLION, PURPLE, GREEN, DARK_GREY, YELLOW, LIGHT_GREY)
"""For lines that are known beforehand, in the order in which they are to be used up."""

FEW = 5
"""Series whose names are not known beforehand, in one panel: Grafana's palette has so many that all eyes tell apart."""
