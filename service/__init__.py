"""The REST microservice: a chest CT slice in, the probability of COVID-19 out. Imports nothing of `training`."""
