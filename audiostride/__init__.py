"""audiostride: audio classification with CNNs that learn their temporal and spectral resolution.

    import audiostride as au

    frontend, trunk = au.LogMel(), au.AudioCNN("diffstride", smoothness=1)
    model = au.load("runs/folder")
    model.predict(waveform, sample_rate)

Importing the package loads nothing; each public name, listed in `__init__.pyi`, is imported when it is first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
