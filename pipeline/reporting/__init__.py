"""The parts of the verification report: what the scores say, maps, colours, and the page they are put on."""
