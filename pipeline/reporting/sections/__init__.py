"""The sections of the page, a module each: from results to a `pipeline.reporting.elements.Section`.

A section's script and style are ``assets/NAME.js`` and ``assets/NAME.css``; its script finds the helpers of ``base.js`` and
``charts.js`` and reads its data by ``read(id)``. The order of the sections is in `pipeline.report`.
"""
