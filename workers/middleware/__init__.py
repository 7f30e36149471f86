"""What folds around every handler, one file each."""
