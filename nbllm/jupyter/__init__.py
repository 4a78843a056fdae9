"""Cells and clicks to messages to outputs. Everything that knows IPython, traitlets or a front end is in here."""
