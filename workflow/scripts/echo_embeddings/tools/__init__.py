"""What users run beside the workflow, and what the workflow asks of a cluster."""
