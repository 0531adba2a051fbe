"""Parts that several agents share: robust statistics, series of scores, task order, dates; no state, no context."""
