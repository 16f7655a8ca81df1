"""A trained model at work: files, streams and label files in, answers out; exported to other runtimes, and HEAR."""
