"""The figures of the paper: what each shows (`*_data`), and how it is drawn."""
