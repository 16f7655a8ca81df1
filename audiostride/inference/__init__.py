"""A trained model at work: sounds in, predictions and label files out; exported to other runtimes, and HEAR."""
