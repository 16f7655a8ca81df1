"""Sound and images: from files, tables, archives and servers to batches. Knows no model.

A source is a function that returns a `Clips` table: `folder`, `manifest`, `annotations`, `archives`, `hub`,
`shards` and `ripples`. `splits` says which clip is for what, `leaks` what a split has torn apart, `inspection`
what a set holds, `bad_files` what cannot be read, `labels` turns label columns into class numbers, `cache`
decodes everything once, `streaming` fetches what stays on a server, `augment` changes training windows,
`epoch_plan` says which clips make a batch, `batches` draws their windows. `sections` holds what a recipe may
say of all that.
"""
