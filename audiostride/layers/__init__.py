"""Downsampling by cropping the spectrum: masks, the three pooling layers, their use in any model. Knows torch only.

`spectrum` has sizes and masks, `pooling_matrix` the matrix that pools an axis, `crop_spectrum` the product with it,
`downsampling` the modules `SpectralPool` and `DiffStride`, `strided_conv` the baseline; `choice` is how a network
chooses among them. `conv_form` says when a convolution runs behind the pooling that follows it, `recomputation` saves
memory. `strides` handles the learned strides of a whole model, `conversion` puts such layers into any model.
"""
