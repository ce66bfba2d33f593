"""The figures of the paper: the data of each (`*_data`), and how it is plotted."""
