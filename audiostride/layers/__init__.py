"""Downsampling by cropping the spectrum: masks, the three pooling layers, their use in any model. Knows torch only.

`spectrum` has sizes and masks, `pooling_matrix` and `crop_spectrum` the two ways to compute a pooling, `downsampling`
the modules `SpectralPool` and `DiffStride`, `strided_conv` the baseline. `conv_form` chooses how a convolution and the
pooling after it run, `spectral_conv` and `recomputation` make that fast and small. `strides` handles the learned
strides of a whole model, `conversion` puts such layers into a model of any origin.
"""
