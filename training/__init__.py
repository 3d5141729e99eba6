"""The offline job: COVID-CT and ImageNet weights in, a model file with its metrics and figures out."""
