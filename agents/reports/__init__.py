"""What is made from the files of a run: progress, transcript, plots."""
