"""A trained model at work: sounds in, predictions and label files out; exported to other runtimes, and HEAR.

`embedding` reads many sounds in bounded memory (`streams` those of a pipe), `predict` classifies them, `row_file`,
`label_files` and `embedding_table` write the results. `export` checks what `exported_model` computes and
`export_formats` writes.
"""
