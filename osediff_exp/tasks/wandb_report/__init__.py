"""The comparison of a sweep as a W&B report: what it shows (content), and putting it on a server or into a file (publishing)."""
