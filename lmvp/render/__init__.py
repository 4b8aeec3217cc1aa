"""Conversion of records and views to plain text, static HTML, SVG and the JSON data of widgets.

The functions are pure: they do no I/O, so client, notebook and server share them.
"""
