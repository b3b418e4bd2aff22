"""From records alone to tables, figures and pages."""
