"""Where things are kept: interfaces in `base`, and what implements them."""
