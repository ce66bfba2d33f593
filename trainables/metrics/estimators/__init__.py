"""Parts of metrics: activity of codes, information, votes, examples."""
