from .jobs import JobSummary, adapt, embed, score

__all__ = ["JobSummary", "adapt", "embed", "score"]
