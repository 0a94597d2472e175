"""What a guided step, a picture and a run cost, beside the ways in which people do it by hand."""
