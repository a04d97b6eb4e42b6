"""Parts that every other room uses: errors, checks of arguments, durations, documents, forks."""
