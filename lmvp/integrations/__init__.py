"""Loggers and callbacks for frameworks with their own training loop.

================  ==========================================================================
`lightning`       `LMVPLogger`, for Lightning's `Trainer(logger=…)`
`keras`           `LMVPMetricsLogger`, `LMVPModelCheckpoint`, for Keras 3's `fit(callbacks=[…])`
`transformers`    `LMVPCallback`, for Hugging Face's `Trainer(callbacks=[…])`
================  ==========================================================================

This package imports none of these frameworks; each module imports its framework. See docs/integrations.md.
"""
