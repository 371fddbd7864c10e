"""Figures for papers, by matplotlib: the report's curves, scorecard, maps, spectra and training as PNG and PDF.

Nothing but this folder imports matplotlib, which is the extra ``figures``.
"""
