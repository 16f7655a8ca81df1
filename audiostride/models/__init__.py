"""What a classifier is (frontend, trunk, heads, files), what it costs and what it keeps (cut-offs). Knows no data.

`network` joins a frontend (`log_mel`), a trunk (`audio_cnn`, `audio_resnet`, `resnet`, `wave_cnn`) and a head per task;
`classifier` adds `files` and the `hub`, `registry` names. `cost` counts multiply-accumulates, `cutoffs` converts
strides to Hz and cycles per mel band.
"""
