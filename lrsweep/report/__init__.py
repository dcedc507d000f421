"""Facts and figures as one HTML page."""
