"""What pools: spectra and masks, the three downsampling layers, and their use in any model. Knows torch only."""
