"""Loggers for frameworks that have their own training loops: thin, over `lmvp.start_run`. See docs/integrations.md.

================  ==========================================================================
`lightning`       `LMVPLogger`, for Lightning's `Trainer(logger=…)`
`keras`           `LMVPMetricsLogger`, `LMVPModelCheckpoint`, for Keras 3's `fit(callbacks=[…])`
`transformers`    `LMVPCallback`, for Hugging Face's `Trainer(callbacks=[…])`
================  ==========================================================================

This imports none of them.
"""
