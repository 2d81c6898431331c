"""What the series measured: studies, their rows, tables, pictures, the report, the benchmark."""
