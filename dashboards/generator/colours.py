"""Colours that readers with any colour vision deficiency can distinguish: the Okabe-Ito palette and two greys.

Colour is never the only information: each coloured value has a text or a number.
"""

GREEN, YELLOW, VERMILION, SKY, BLUE, ORANGE, PURPLE = (
    "#009E73",
    "#F0E442",
    "#D55E00",
    "#56B4E9",
    "#0072B2",
    "#E69F00",
    "#CC79A7",
)
DARK_GREY, LIGHT_GREY = "#595959", "#A6A6A6"

SEVERITY_COLOURS = {"good": GREEN, "warn": YELLOW, "bad": VERMILION, "busy": BLUE, "quiet": DARK_GREY}
"""Colours of the status page's severities. They are for areas, because a yellow line is not visible on white."""

TRANSPARENT = "transparent"
"""Colour of a table cell without a value. A grey cell would be as prominent as a state."""

LINE_COLOURS = (BLUE, ORANGE, SKY, VERMILION, PURPLE, GREEN, DARK_GREY, YELLOW, LIGHT_GREY)
"""Colours of series whose names are known in advance, in the order of use."""

MAX_SERIES = 5
"""Series of unknown names in one panel. Only the first five colours of Grafana's palette are distinct for everyone."""
