"""The shapes that cross a border: between control and engine, workers, master, inputs and effects."""
