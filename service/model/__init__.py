"""From a model file and its card to a predictor on a device."""
